"""Text as bytes, split into train, validation and test *by file*, named by its SHA-256."""

import hashlib
import json
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nas.errors import UserError
from nas.settings import CorpusSettings

SPLITS = ("train", "validation", "test")
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
_MIN_TRAIN_BYTES = 100_000
_MIN_HELD_OUT_BYTES = 10_000


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
    """

    name: str
    sha256: str
    folder: str
    sizes: dict[str, int]
    bigram_bits_per_byte: float

    def require_windows(self, time: int) -> None:
        """Raises CorpusError if a split is shorter than one window of `time` bytes and the next byte."""
        short = min(SPLITS, key=lambda split: self.sizes[split])
        if self.sizes[short] <= time:
            raise CorpusError(f"the {short} split has {self.sizes[short]:,} bytes: too few for train.time={time}")

    def read(self, split: str) -> np.ndarray:
        """The bytes of one split, memory-mapped: uint8 [bytes]."""
        return np.memmap(Path(self.folder) / f"{split}.bin", dtype=np.uint8, mode="r")


def prepare(settings: CorpusSettings, cache: Path) -> Corpus:
    """Reads, splits and stores the corpus under `cache`; what is there already is used if it is the same text.

    Raises:
      CorpusError: if the text is missing, unreadable, not UTF-8 or too small.
    """
    splits: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    for key, content in _files(settings):
        splits[_split_of(key)].append(content)
    if settings.kind == "text" and sum(map(len, splits.values())) == 1:
        splits = _split_one_file(next(part[0] for part in splits.values() if part))
    joined = {split: b"\n".join(parts) for split, parts in splits.items()}
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
    """Nine files in ten train; the rest are held out. By name, so that a new file moves no other one."""
    bucket = hashlib.sha256(os.fsencode(key)).digest()[0] % 20  # a name need not be UTF-8
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def _split_one_file(content: bytes) -> dict[str, list[bytes]]:
    """A single file can't be split by file: its last tenth is held out."""
    first, second = int(len(content) * 0.9), int(len(content) * 0.95)
    return {"train": [content[:first]], "validation": [content[first:second]], "test": [content[second:]]}


def _check_sizes(settings: CorpusSettings, joined: dict[str, bytes]) -> None:
    where = settings.path or "the standard library"
    total = sum(map(len, joined.values()))
    if not total:
        raise CorpusError(f"the corpus ({where}) is empty: give a text of at least 0.2 MB")
    if len(joined["train"]) < _MIN_TRAIN_BYTES or min(len(joined[s]) for s in SPLITS[1:]) < _MIN_HELD_OUT_BYTES:
        sizes = ", ".join(f"{split} {len(joined[split]):,} bytes" for split in SPLITS)
        raise CorpusError(
            f"the corpus ({where}) is too small ({sizes}): it needs {_MIN_TRAIN_BYTES:,} bytes to train and "
            f"{_MIN_HELD_OUT_BYTES:,} in each held-out split, so give more text, or more and smaller files"
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
    temporary.replace(path)


def bigram_bits_per_byte(train: np.ndarray, held_out: np.ndarray) -> float:
    """Bits per byte of `held_out` (uint8 [n]) under add-1/256 smoothed bigram counts of `train` (uint8 [m])."""
    pairs = train[:-1].astype(np.int64) * 256 + train[1:]
    counts = np.bincount(pairs, minlength=65536).reshape(256, 256) + 1 / 256
    log2 = np.log2(counts / counts.sum(axis=1, keepdims=True))
    return float(-log2[held_out[:-1], held_out[1:]].mean())
