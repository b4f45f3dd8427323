"""A prepared corpus on disk: a file of tokens a split, and the bytes that each token stands for."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.tasks.corpora.source import CorpusError
from nas.tasks.splits import SPLITS
from nas.tasks.tokenizer import BYTES, Tokenizer, tokenizer_at

TOKEN_BYTES = "token_bytes"
TOKENIZER = "tokenizer.json"  # kept for whoever has to make tokens of other text later


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, in `folder`.

    Attributes:
      sha256: of all splits in order, and of the tokenizer unless it is bytes: the name of the data in every record.
      sizes: split -> tokens.
      bigram_bits_per_byte: what a bigram table of the training bytes reaches on validation: the floor under which a
        trained model must come.
      compressed_bits_per_byte: what LZMA needs for the validation split: no small model gets far below it.
      text_bytes: split -> bytes of the text that its tokens stand for.
      tokenizer: its name. `vocabulary`: how many tokens there are. `dtype`: what the splits' files hold.
      tokenizer_sha256: of the bytes of each of its tokens.
      files: name -> sha256 of each file: those of the splits, and "token_bytes".
    """

    name: str
    sha256: str
    folder: str
    sizes: dict[str, int]
    bigram_bits_per_byte: float
    compressed_bits_per_byte: float
    text_bytes: dict[str, int] = field(default_factory=dict)
    tokenizer: str = "bytes"
    tokenizer_sha256: str = ""
    vocabulary: int = 256
    dtype: str = "uint8"
    files: dict[str, str] = field(default_factory=dict)

    def require_windows(self, time: int) -> None:
        """Raises CorpusError if a split is shorter than one window of `time` tokens and the next token."""
        short = min(SPLITS, key=lambda split: self.sizes[split])
        if self.sizes[short] <= time:
            raise CorpusError(f"the {short} split has {self.sizes[short]:,} {self.unit}: too few for train.time={time}")

    @property
    def unit(self) -> str:
        """What it is a sequence of, for a person."""
        return "bytes" if self.tokenizer == "bytes" else "tokens"

    def file(self, split: str) -> Path:
        """Where the tokens of one split are: `dtype` [tokens]."""
        return Path(self.folder) / f"{split}.bin"

    @property
    def token_bytes(self) -> Path:
        """Where the number of bytes of each token is: uint16 [vocabulary]."""
        return Path(self.folder) / f"{TOKEN_BYTES}.bin"


def find(cache: Path, key: str) -> Corpus | None:
    """What was prepared from a source with this key, if all of it is still as it was written."""
    try:
        kept = json.loads(_note(cache, key).read_bytes())
        if kept["sha256"] != _sha256_of_values(kept["corpus"]):
            return None
        folder = _folder(cache, kept["corpus"]["sha256"])
        corpus = Corpus(**{**kept["corpus"], "folder": str(folder)})
        for name, sha256 in corpus.files.items():
            with (folder / f"{name}.bin").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return corpus if _same(folder / "corpus.json", _for_a_person(corpus)) else None


def kept_tokenizer(corpus: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a prepared corpus, from what a journal says of it.

    Raises:
      CorpusError: if it is there no more, or is another one by now.
    """
    if corpus.get("tokenizer", "bytes") == "bytes":
        return BYTES
    found = tokenizer_at(Path(corpus["folder"]) / TOKENIZER)
    if found.sha256 != corpus["tokenizer_sha256"]:
        raise CorpusError(f"the tokenizer in {corpus['folder']} is no longer that of the corpus: prepare it again")
    return found


def store(
    cache: Path,
    key: str,
    name: str,
    tokenizer: Tokenizer,
    splits: Mapping[str, Iterable[np.ndarray]],
    floors: Mapping[str, float],
) -> Corpus:
    """Writes the splits under the hash of what is in them. What is there already, and whole, is left alone.

    Raises:
      CorpusError: if the disk does not take it; nothing half-written is left behind.
    """
    partial = cache / f"preparing-{key}-{os.getpid()}"
    folder = cache  # until the name is known
    try:
        partial.mkdir(parents=True, exist_ok=True)
        written = {split: _write(partial / f"{split}.bin", pieces, tokenizer) for split, pieces in splits.items()}
        (partial / f"{TOKEN_BYTES}.bin").write_bytes(tokenizer.lengths.tobytes())
        files = {split: sha256 for split, (sha256, *_) in written.items()}
        sha256 = _sha256_of(files, tokenizer)
        files[TOKEN_BYTES] = hashlib.sha256(tokenizer.lengths.tobytes()).hexdigest()
        folder = _folder(cache, sha256)
        corpus = Corpus(
            name=name,
            sha256=sha256,
            folder=str(folder),
            sizes={split: tokens for split, (_, tokens, _) in written.items()},
            text_bytes={split: size for split, (*_, size) in written.items()},
            tokenizer=tokenizer.name,
            tokenizer_sha256=tokenizer.sha256,
            vocabulary=tokenizer.vocabulary,
            dtype=tokenizer.dtype,
            files=files,
            **floors,
        )
        (partial / "corpus.json").write_bytes(_for_a_person(corpus))
        if tokenizer.library is not None:
            (partial / TOKENIZER).write_text(tokenizer.library.to_str())
        folder.mkdir(exist_ok=True)
        for path in sorted(partial.iterdir()):
            _move(path, folder / path.name)
        _keep_note(cache, key, corpus, partial)
    except OSError as error:
        raise CorpusError(f"the corpus can't be stored in {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return corpus


def _write(path: Path, pieces: Iterable[np.ndarray], tokenizer: Tokenizer) -> tuple[str, int, int]:
    """(sha256, tokens, bytes of text) of what was written."""
    digest, tokens, size = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for piece in pieces:
            for start in range(0, len(piece), 2**22):  # a piece may be a file larger than the memory
                part = piece[start : start + 2**22].astype(tokenizer.dtype)
                digest.update(part.data)
                file.write(part.data)
                tokens, size = tokens + len(part), size + tokenizer.bytes_in(part)
    return digest.hexdigest(), tokens, size


def _sha256_of(files: Mapping[str, str], tokenizer: Tokenizer) -> str:
    """Of bytes it is the hash of the text alone, whatever was added to a corpus since."""
    digest = hashlib.sha256(b"".join(bytes.fromhex(files[split]) for split in SPLITS))
    if tokenizer.library is not None:
        digest.update(bytes.fromhex(tokenizer.sha256))
    return digest.hexdigest()


def _folder(cache: Path, sha256: str) -> Path:
    return (cache / f"corpus-{sha256[:16]}").resolve()


def _note(cache: Path, key: str) -> Path:
    return cache / f"source-{key}.json"


def _keep_note(cache: Path, key: str, corpus: Corpus, partial: Path) -> None:
    values = asdict(replace(corpus, folder=""))
    note = {"sha256": _sha256_of_values(values), "corpus": values}
    (partial / "note.json").write_text(json.dumps(note))
    (partial / "note.json").replace(_note(cache, key))


def _sha256_of_values(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _for_a_person(corpus: Corpus) -> bytes:
    return json.dumps(asdict(corpus)).encode()


def _same(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _move(new: Path, place: Path) -> None:
    """Whole or not at all, and only if it isn't there: other searches may prepare or read the same corpus."""
    if place.exists() and place.stat().st_size == new.stat().st_size:
        with place.open("rb") as there, new.open("rb") as here:
            if hashlib.file_digest(there, "sha256").digest() == hashlib.file_digest(here, "sha256").digest():
                return
    new.chmod(0o444)  # whoever is handed it open could open it again, to write
    new.replace(place)
