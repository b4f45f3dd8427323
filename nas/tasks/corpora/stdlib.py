"""The sources of the running Python's standard library: no download, the same for everybody with this Python."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError, Document, name_of, read_text, signature

_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}


def identity(settings: CorpusSettings) -> Any:
    return signature(*_sources())


def documents(settings: CorpusSettings) -> Iterator[Document]:
    root, paths = _sources()
    for path in paths:
        try:
            content = read_text(path)
        except UnicodeDecodeError:  # a few of them declare another encoding
            continue
        if content:
            yield Document(name_of(root, path), content)


def _sources() -> tuple[Path, list[Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts))
    if not paths:
        raise CorpusError(f"this Python has no library sources under {root}: use corpus=text path=FILE_OR_FOLDER")
    return root, paths
