"""Text as bytes, split *by file* where there are enough of them, named by its SHA-256.

Training processes see `train` and `validation`. Contenders are rescored on `reserve`, which no training process is
given. `test` is for verification: no search touches it.
"""

import hashlib
import json
import lzma
import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from nas.errors import UserError
from nas.settings import CorpusSettings

SPLITS = ("train", "validation", "reserve", "test")
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
_MIN_TRAIN_BYTES = 100_000
_MIN_HELD_OUT_BYTES = 10_000
_COMPRESSED_BYTES = 2**20  # of the validation split, to learn how well it can be compressed


class CorpusError(UserError):
    """The text can't be used. The message is one sentence that says what to do."""


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: one file of bytes a split, in `folder`.

    Attributes:
      sha256: of all splits in order: the name of the data in every record.
      sizes: split -> bytes.
      bigram_bits_per_byte: what a bigram table of the training bytes reaches on validation: the floor under which a
        trained model must come.
      compressed_bits_per_byte: what LZMA needs for the validation split: no small model gets far below it.
    """

    name: str
    sha256: str
    folder: str
    sizes: dict[str, int]
    bigram_bits_per_byte: float
    compressed_bits_per_byte: float

    def require_windows(self, time: int) -> None:
        """Raises CorpusError if a split is shorter than one window of `time` bytes and the next byte."""
        short = min(SPLITS, key=lambda split: self.sizes[split])
        if self.sizes[short] <= time:
            raise CorpusError(f"the {short} split has {self.sizes[short]:,} bytes: too few for train.time={time}")

    def file(self, split: str) -> Path:
        """Where the bytes of one split are."""
        return Path(self.folder) / f"{split}.bin"


def read_bytes(file: Path | int) -> np.ndarray:
    """A file, or an open descriptor of one, memory-mapped: uint8 [bytes]."""
    if isinstance(file, int):
        with os.fdopen(os.dup(file), "rb") as opened:
            return np.memmap(opened, dtype=np.uint8, mode="r")
    return np.memmap(file, dtype=np.uint8, mode="r")


def prepare(settings: CorpusSettings, cache: Path) -> Corpus:
    """Reads, splits and stores the corpus under `cache`; what is there already is used if it is the same text.

    Raises:
      CorpusError: if the text is missing, unreadable, not UTF-8 or too small.
    """
    files = list(_files(settings))
    joined = {split: b"\n".join(text for key, text in files if _split_of(key) == split) for split in SPLITS}
    if _too_small(joined):  # too few files to hold whole ones out
        joined = _split_at_the_end(b"\n".join(text for _, text in files))
    _check_sizes(settings, joined)
    return _store(settings.kind, joined, cache)


def _files(settings: CorpusSettings) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file, in an order that does not depend on the file system."""
    if settings.kind == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        paths = sorted(path for path in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(path.relative_to(root).parts))
        if not paths:
            raise CorpusError(f"this Python has no library sources under {root}: use corpus=text path=FILE_OR_FOLDER")
    else:
        root = Path(os.path.expanduser(settings.path or ""))
        if not os.path.exists(root):
            raise CorpusError(f"corpus path {root} does not exist")
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
        if not paths:
            raise CorpusError(f"corpus folder {root} has no files")
    for path in paths:
        try:
            content = path.read_bytes()
            content.decode("utf-8")
        except OSError as error:
            raise CorpusError(f"corpus file {path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            if settings.kind == "stdlib":  # a few of its sources declare another encoding
                continue
            raise CorpusError(f"corpus file {path} is not UTF-8 (byte {error.start}): remove or convert it") from error
        if content:
            yield path.relative_to(root if root.is_dir() else root.parent).as_posix(), content


def _split_of(key: str) -> str:
    """17 files in 20 train; the rest are held out. By name, so that a new file moves no other one."""
    bucket = hashlib.sha256(os.fsencode(key)).digest()[0] % 20  # a name need not be UTF-8
    return {0: "test", 1: "validation", 2: "reserve"}.get(bucket, "train")


def _split_at_the_end(content: bytes) -> dict[str, bytes]:
    """The last 15 % of the text are held out."""
    ends = [int(len(content) * share) for share in (0, 0.85, 0.9, 0.95, 1)]
    return {split: content[start:end] for split, (start, end) in zip(SPLITS, pairwise(ends), strict=True)}


def _too_small(joined: Mapping[str, bytes]) -> bool:
    return len(joined["train"]) < _MIN_TRAIN_BYTES or min(len(joined[s]) for s in SPLITS[1:]) < _MIN_HELD_OUT_BYTES


def _check_sizes(settings: CorpusSettings, joined: dict[str, bytes]) -> None:
    where = settings.path or "the standard library"
    total = sum(map(len, joined.values()))
    if not total:
        raise CorpusError(f"the corpus ({where}) is empty: give a text of at least 0.2 MB")
    if _too_small(joined):
        sizes = ", ".join(f"{split} {len(joined[split]):,} bytes" for split in SPLITS)
        raise CorpusError(
            f"the corpus ({where}) is too small ({sizes}): it needs {_MIN_TRAIN_BYTES:,} bytes to train and "
            f"{_MIN_HELD_OUT_BYTES:,} in each held-out split, so give more text"
        )


def _store(name: str, joined: dict[str, bytes], cache: Path) -> Corpus:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(hashlib.sha256(joined[split]).digest())
    sha256 = digest.hexdigest()
    folder = (cache / f"corpus-{sha256[:16]}").resolve()
    train, validation = (np.frombuffer(joined[split], np.uint8) for split in SPLITS[:2])
    corpus = Corpus(
        name=name,
        sha256=sha256,
        folder=str(folder),
        sizes={split: len(joined[split]) for split in SPLITS},
        bigram_bits_per_byte=bigram_bits_per_byte(train, validation),
        compressed_bits_per_byte=compressed_bits_per_byte(joined["validation"]),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            _put(folder / f"{split}.bin", joined[split])
        _put(folder / "corpus.json", json.dumps(asdict(corpus)).encode())  # for a person
    except OSError as error:
        raise CorpusError(f"the corpus can't be stored in {folder}: {error.strerror}") from error
    return corpus


def _put(path: Path, content: bytes) -> None:
    """Writes whole or not at all, and only if it isn't there: other searches may prepare or read the same corpus."""
    if path.exists() and path.read_bytes() == content:
        return
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    temporary.write_bytes(content)
    temporary.chmod(0o444)  # whoever is handed it open could open it again, to write
    temporary.replace(path)


def bigram_bits_per_byte(train: np.ndarray, held_out: np.ndarray) -> float:
    """Bits per byte of `held_out` (uint8 [n]) under add-1/256 smoothed bigram counts of `train` (uint8 [m])."""
    pairs = train[:-1].astype(np.int64) * 256 + train[1:]
    counts = np.bincount(pairs, minlength=65536).reshape(256, 256) + 1 / 256
    log2 = np.log2(counts / counts.sum(axis=1, keepdims=True))
    return float(-log2[held_out[:-1], held_out[1:]].mean())


def compressed_bits_per_byte(text: bytes) -> float:
    """Bits of LZMA per byte of the beginning of `text`."""
    beginning = text[:_COMPRESSED_BYTES]
    return 8 * len(lzma.compress(beginning)) / len(beginning)
