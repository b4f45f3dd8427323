"""A file of UTF-8 text, or a folder of them."""

from collections.abc import Iterator
from typing import Any

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError, Document, files_at, name_of, read_text, signature


def identity(settings: CorpusSettings) -> Any:
    return signature(*files_at(settings))


def documents(settings: CorpusSettings) -> Iterator[Document]:
    root, paths = files_at(settings)
    for path in paths:
        try:
            content = read_text(path)
        except UnicodeDecodeError as error:
            raise CorpusError(f"corpus file {path} is not UTF-8 (byte {error.start}): remove or convert it") from error
        if content:
            yield Document(name_of(root, path), content)
