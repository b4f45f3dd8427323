"""What every kind of corpus gives: documents, and a cheap sign of whether they are still the same."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nas.errors import UserError
from nas.settings import CorpusSettings


class CorpusError(UserError):
    """The text can't be used. The message is one sentence that says what to do."""


@dataclass(frozen=True)
class Document:
    """A file, or a row of a table.

    Attributes:
      name: decides the split, so it must not depend on what else there is.
      content: text in UTF-8, or tokens that a tokenizer has made of it already: uint16 [tokens].
    """

    name: str
    content: bytes | np.ndarray


class Kind(Protocol):
    """One module of this folder."""

    def identity(self, settings: CorpusSettings) -> Any:
        """JSON values that are others when the documents are others; cheaper than reading them.

        Raises:
          CorpusError: if there is nothing to read.
        """

    def documents(self, settings: CorpusSettings) -> Iterator[Document]:
        """All documents, in an order that does not depend on the file system.

        Raises:
          CorpusError: if one can't be read or used.
        """


def files_at(settings: CorpusSettings, pattern: str = "*") -> tuple[Path, list[Path]]:
    """(folder, the files in and below it that fit `pattern`), or of a single file (its folder, that file).

    Raises:
      CorpusError: if there is none.
    """
    root = Path(os.path.expanduser(settings.path or ""))
    if not os.path.exists(root):
        raise CorpusError(f"corpus path {root} does not exist")
    if not root.is_dir():
        return root.parent, [root]
    paths = sorted(path for path in root.rglob(pattern) if path.is_file())
    if not paths:
        what = "files" if pattern == "*" else f"{pattern} in it"
        raise CorpusError(f"corpus folder {root} has no {what}")
    return root, paths


def signature(root: Path, paths: Sequence[Path]) -> list[Any]:
    """Name, size and time of change of each file: one that was written to since has another.

    Raises:
      CorpusError: if a file can't be looked at.
    """
    signs = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise CorpusError(f"corpus file {path} can't be read: {error.strerror}") from error
        signs.append([name_of(root, path), status.st_size, status.st_mtime_ns])
    return signs


def name_of(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def read_text(path: Path) -> bytes:
    """The content of a UTF-8 file.

    Raises:
      CorpusError: if it can't be read.
      UnicodeDecodeError: if it is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"corpus file {path} can't be read: {error.strerror}") from error
    content.decode("utf-8")
    return content
