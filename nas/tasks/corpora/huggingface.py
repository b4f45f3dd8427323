"""A data set of the `datasets` library: from the Hugging Face Hub by its name, or a local folder or file.

Streamed: of a set of terabytes no more is fetched than what is taken. Local are files that `datasets` can load
(parquet, JSON lines, CSV, text) by `path=`; those need no network.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError, Document, files_at, signature

_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".txt": "text", ".arrow": "arrow"}


def identity(settings: CorpusSettings) -> Any:
    """A set on the Hub is taken for the same under the same name: it is not fetched to find that out."""
    where = signature(*files_at(settings)) if settings.path else settings.dataset
    return [where, settings.config, settings.split, settings.column, settings.megabytes]


def documents(settings: CorpusSettings) -> Iterator[Document]:
    """One a row, until `megabytes` are reached. A row without text is passed over."""
    left = round(settings.megabytes * 1e6)
    for number, text in enumerate(_texts(settings)):
        if text:
            content = text.encode("utf-8", "replace")  # half a surrogate pair, which JSON can hold and UTF-8 can't
            yield Document(str(number), content)
            left -= len(content)
        if left <= 0:
            return


def _texts(settings: CorpusSettings) -> Iterator[str]:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError("corpus=huggingface needs the extra text: make text, or pip install 'nas[text]'") from error
    what = settings.path or settings.dataset
    try:
        rows = datasets.load_dataset(*_source(settings), split=settings.split, streaming=True, **_files(settings))
        for row in rows:
            if settings.column not in row:
                raise CorpusError(f"the data set {what} has no column {settings.column}: it has {', '.join(row)}")
            text = row[settings.column]
            if not isinstance(text, str | None):
                raise CorpusError(f"column {settings.column} of the data set {what} holds no text: set corpus.column")
            yield text or ""
    except CorpusError:
        raise
    except Exception as error:  # whatever its readers, the network and the Hub raise
        said = " ".join(str(error).split())[:300]
        raise CorpusError(f"the data set {what} can't be read: {said or type(error).__name__}") from error


def _source(settings: CorpusSettings) -> list[str | None]:
    if settings.path is None:
        return [settings.dataset, settings.config]
    path = Path(os.path.expanduser(settings.path))
    return [str(path) if path.is_dir() else _builder(path), settings.config]


def _files(settings: CorpusSettings) -> dict[str, Any]:
    path = Path(os.path.expanduser(settings.path or ""))
    return {"data_files": {settings.split: [str(path)]}} if settings.path and not path.is_dir() else {}


def _builder(path: Path) -> str:
    if builder := _BUILDERS.get(path.suffix.lower()):
        return builder
    raise CorpusError(f"corpus file {path} is none of {', '.join(_BUILDERS)}: corpus=text takes any UTF-8 file")
