"""From what the settings name to tokens on disk, split by document, named by their SHA-256.

Training processes see `train` and `validation`. Contenders are rescored on `reserve`, which no training process is
given. `test` is for verification: no search touches it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.settings import CorpusSettings
from nas.tasks import prepared
from nas.tasks.corpora import KINDS
from nas.tasks.corpora.source import CorpusError, Document
from nas.tasks.floors import bigram_bits_per_byte, compressed_bits_per_byte
from nas.tasks.prepared import Corpus
from nas.tasks.splits import SPLITS, split_text, split_tokens
from nas.tasks.tokenizer import Tokenizer, file_sha256, tokenizer_of

__all__ = ["SPLITS", "Corpus", "CorpusError", "prepare"]

_FORMAT = 1  # of what is stored
_FLOOR_TOKENS = 2**24  # of tokens that are memory-mapped, so many are turned into text for the floors


def prepare(settings: CorpusSettings, cache: Path) -> Corpus:
    """Reads, splits and stores the corpus under `cache`.

    What was prepared before is used again if neither its source nor a byte of it has changed since; otherwise it is
    prepared again, which mends it.

    Raises:
      CorpusError: if the text is missing, unreadable, not UTF-8 or too small, or the tokenizer does not fit it.
    """
    kind = KINDS[settings.kind]
    key = _key(settings, kind.identity(settings))
    if found := prepared.find(cache, key):
        return found
    documents = list(kind.documents(settings))
    where = settings.path or settings.dataset or "the standard library"
    if any(isinstance(document.content, np.ndarray) for document in documents):
        return _prepare_tokens(settings, documents, where, cache, key)
    return _prepare_text(settings, documents, where, cache, key)


def _prepare_text(settings: CorpusSettings, documents: Sequence[Document], where: str, cache: Path, key: str) -> Corpus:
    texts = split_text(documents, where)
    tokenizer = tokenizer_of(settings, texts["train"], cache)
    tokens = {split: tokenizer.encode(text) for split, text in texts.items()}
    return prepared.store(
        cache, key, settings.kind, tokenizer, tokens, floors=_floors(texts["train"], texts["validation"])
    )


def _prepare_tokens(
    settings: CorpusSettings, documents: Sequence[Document], where: str, cache: Path, key: str
) -> Corpus:
    tokenizer = tokenizer_of(settings, None, cache)
    tokens = split_tokens(documents, tokenizer.bytes_in, where)
    train, validation = (_beginning(tokens[split], tokenizer) for split in ("train", "validation"))
    return prepared.store(cache, key, settings.kind, tokenizer, tokens, floors=_floors(train, validation))


def _beginning(pieces: Sequence[np.ndarray], tokenizer: Tokenizer) -> bytes:
    """The text of the first tokens."""
    texts, left = [], _FLOOR_TOKENS
    for piece in pieces:
        texts.append(tokenizer.decode(piece[:left]))
        left -= len(piece[:left])
    return b"".join(texts)


def _floors(train: bytes, validation: bytes) -> dict[str, float]:
    """In bits per byte of the text, whatever the tokens are."""
    return {
        "bigram_bits_per_byte": bigram_bits_per_byte(*(np.frombuffer(text, np.uint8) for text in (train, validation))),
        "compressed_bits_per_byte": compressed_bits_per_byte(validation),
    }


def _key(settings: CorpusSettings, identity: object) -> str:
    """Another one if the source, the tokenizer or the way in which it is prepared is another."""
    bpe = settings.vocabulary if settings.tokenizer == "bpe" else None
    how = [_FORMAT, settings.kind, file_sha256(settings) or settings.tokenizer, bpe]
    return hashlib.sha256(json.dumps([how, identity]).encode()).hexdigest()[:16]
