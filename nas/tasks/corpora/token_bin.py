"""Tokens that other trainers have prepared: a `.bin` file or a folder of them, memory-mapped.

Two formats are in use, and told apart by their first word. nanoGPT (https://github.com/karpathy/nanoGPT) writes the
tokens alone, as uint16. llm.c (https://github.com/karpathy/llm.c) puts 256 words of int32 before them, of which the
first three are 20240520, 1 (the version) and the number of tokens. All numbers have their low byte first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError, Document, files_at, name_of, signature
from nas.tasks.reader import read_tokens

_MAGIC, _VERSION, _HEADER_BYTES = 20240520, 1, 256 * 4
_OTHER_MAGICS = {20240801: "uint32 tokens", 20240522: "evaluation data", 20240326: "a model"}
_DTYPE = "<u2"


def identity(settings: CorpusSettings) -> Any:
    return signature(*files_at(settings, "*.bin"))


def documents(settings: CorpusSettings) -> Iterator[Document]:
    root, paths = files_at(settings, "*.bin")
    for path in paths:
        tokens = tokens_of(path)
        if len(tokens):
            yield Document(name_of(root, path), tokens)


def tokens_of(path: Path) -> np.ndarray:
    """The tokens of one file, memory-mapped: uint16 [tokens].

    Raises:
      CorpusError: if it can't be read, or is neither format.
    """
    try:
        size = path.stat().st_size
        if size % 2:
            raise CorpusError(f"corpus file {path} has {size:,} bytes, an odd number, and tokens of two: it is damaged")
        if not size:
            return np.zeros(0, _DTYPE)
        whole = read_tokens(path, _DTYPE)
    except OSError as error:
        raise CorpusError(f"corpus file {path} can't be read: {error.strerror}") from error
    header = np.frombuffer(whole[: _HEADER_BYTES // 2].tobytes()[: size // 4 * 4], "<i4")
    if not _is_header(header):
        return whole
    _check_header(path, header, size)
    return whole[_HEADER_BYTES // 2 :]


def _is_header(first: np.ndarray) -> bool:
    """Whether these words were meant as a header: llm.c leaves all but the first three empty.

    nanoGPT's tokens could begin like that only where two hundred times in a row nothing but token 0 follows.
    """
    known = len(first) > 0 and int(first[0]) in {_MAGIC, *_OTHER_MAGICS}
    empty_behind = len(first) == _HEADER_BYTES // 4 and first[0] != 0 and not first[3:].any()
    return known or bool(empty_behind)


def _check_header(path: Path, header: np.ndarray, size: int) -> None:
    """Raises CorpusError if it is another header than llm.c's, or not true of the file."""
    magic = int(header[0])
    if magic != _MAGIC:
        what = f", that of {_OTHER_MAGICS[magic]}" if magic in _OTHER_MAGICS else ""
        raise CorpusError(
            f"corpus file {path} begins with the number {magic}{what}, where llm.c's tokens have {_MAGIC}: "
            "give uint16 tokens, with that header or none"
        )
    if len(header) < _HEADER_BYTES // 4:
        raise CorpusError(f"corpus file {path} ends within its header: it is damaged, so fetch it again")
    if int(header[1]) != _VERSION:
        raise CorpusError(f"corpus file {path} has version {int(header[1])} of llm.c's format, where 1 is known")
    there = (size - _HEADER_BYTES) // 2
    if int(header[2]) != there:
        raise CorpusError(
            f"corpus file {path} has {there:,} tokens where its header says {int(header[2]):,}: "
            "it is damaged, so fetch it again"
        )
