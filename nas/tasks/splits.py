"""Which text trains and which is held out: whole documents where there are enough of them, else the end of the text.

Training processes see `train` and `validation`. Contenders are rescored on `reserve`, which no training process is
given. `test` is for verification: no search touches it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from nas.tasks.corpora.source import CorpusError, Document

SPLITS = ("train", "validation", "reserve", "test")
_SHARES = (0, 0.85, 0.9, 0.95, 1)  # where one split ends and the next begins
_MIN_TRAIN_BYTES = 100_000
_MIN_HELD_OUT_BYTES = 10_000


def split_text(documents: Sequence[Document], where: str) -> dict[str, bytes]:
    """split -> its documents, joined by newlines.

    Raises:
      CorpusError: if there is too little text.
    """
    texts = [(document.name, bytes(document.content)) for document in documents]
    joined = {split: b"\n".join(text for name, text in texts if _split_of(name) == split) for split in SPLITS}
    if _too_small(sizes := _lengths(joined)):  # too few documents to hold whole ones out
        whole = b"\n".join(text for _, text in texts)
        cuts = [_at_character(whole, cut) for cut in _cuts(len(whole))]
        joined = {split: whole[start:end] for split, (start, end) in zip(SPLITS, pairwise(cuts), strict=True)}
        sizes = _lengths(joined)
    _check(sizes, where)
    return joined


def split_tokens(
    documents: Sequence[Document], bytes_in: Callable[[np.ndarray], int], where: str
) -> dict[str, list[np.ndarray]]:
    """split -> its pieces, not copied. Where files are called `train` and `val`, the held-out splits share the latter.

    Raises:
      CorpusError: if there are too few.
    """
    held_out = [document for document in documents if _says(document, "val")]
    rest = [document for document in documents if not _says(document, "val")]
    if held_out and any(_says(document, "train") for document in rest):
        thirds = _cut(_tokens(held_out), (0, 1 / 3, 2 / 3, 1))
        pieces = dict(zip(SPLITS, [_tokens(rest), *thirds], strict=True))
    else:
        pieces = {split: _tokens([d for d in documents if _split_of(d.name) == split]) for split in SPLITS}
        if _too_small(_sizes(pieces, bytes_in)):
            pieces = dict(zip(SPLITS, _cut(_tokens(documents), _SHARES), strict=True))
    _check(_sizes(pieces, bytes_in), where)
    return pieces


def _split_of(name: str) -> str:
    """17 documents in 20 train; the rest are held out. By name, so that a new one moves no other."""
    bucket = hashlib.sha256(os.fsencode(name)).digest()[0] % 20  # a name need not be UTF-8
    return {0: "test", 1: "validation", 2: "reserve"}.get(bucket, "train")


def _cuts(size: int) -> list[int]:
    return [int(size * share) for share in _SHARES]


def _at_character(text: bytes, cut: int) -> int:
    """The first place from `cut` on at which no character of UTF-8 is cut in two."""
    while cut < len(text) and text[cut] & 0xC0 == 0x80:
        cut += 1
    return cut


def _says(document: Document, word: str) -> bool:
    return word in PurePosixPath(document.name).stem.lower()


def _tokens(documents: Sequence[Document]) -> list[np.ndarray]:
    return [document.content for document in documents if isinstance(document.content, np.ndarray)]


def _cut(pieces: Sequence[np.ndarray], shares: Sequence[float]) -> list[list[np.ndarray]]:
    """The same tokens in so many parts."""
    total = sum(map(len, pieces))
    parts = []
    for start, end in pairwise([int(total * share) for share in shares]):
        part, seen = [], 0
        for piece in pieces:
            chosen = piece[max(0, start - seen) : max(0, end - seen)]
            part += [chosen] if len(chosen) else []
            seen += len(piece)
        parts.append(part)
    return parts


def _lengths(joined: Mapping[str, bytes]) -> dict[str, int]:
    return {split: len(text) for split, text in joined.items()}


def _sizes(pieces: Mapping[str, Sequence[np.ndarray]], bytes_in: Callable[[np.ndarray], int]) -> dict[str, int]:
    return {split: sum(map(bytes_in, parts)) for split, parts in pieces.items()}


def _too_small(sizes: Mapping[str, int]) -> bool:
    return sizes["train"] < _MIN_TRAIN_BYTES or min(sizes[split] for split in SPLITS[1:]) < _MIN_HELD_OUT_BYTES


def _check(sizes: Mapping[str, int], where: str) -> None:
    if not sum(sizes.values()):
        raise CorpusError(f"the corpus ({where}) is empty: give a text of at least 0.2 MB")
    if _too_small(sizes):
        said = ", ".join(f"{split} {sizes[split]:,} bytes" for split in SPLITS)
        raise CorpusError(
            f"the corpus ({where}) is too small ({said}): it needs {_MIN_TRAIN_BYTES:,} bytes to train and "
            f"{_MIN_HELD_OUT_BYTES:,} in each held-out split, so give more text"
        )
