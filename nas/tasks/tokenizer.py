"""From text to tokens, and how many bytes of text each token stands for.

With that, a loss in nats per token becomes bits per byte, which compares across tokenizers: the bits of all scored
tokens over the bytes they stand for. A token that stands for no text, as one that marks the end of a document, counts
in neither (nanochat's rule, https://github.com/karpathy/nanochat).
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError

_PIECE = 2**18  # bytes that are tokenized at once
_MOST_TOKEN_BYTES = 2**16 - 1


@dataclass(frozen=True)
class Tokenizer:
    """The bytes of each token id: b"" for one that stands for no text.

    Attributes:
      name: "bytes", "bpe" or the name of a file.
      sha256: of `table`: two tokenizers with the same are the same for any measurement.
    """

    name: str
    table: tuple[bytes, ...]
    library: Any = field(default=None, repr=False)

    @property
    def vocabulary(self) -> int:
        return len(self.table)

    @property
    def dtype(self) -> str:
        """The smallest that holds every token id."""
        return next(kind for kind in ("uint8", "uint16", "uint32") if len(self.table) <= np.iinfo(kind).max + 1)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each token: uint16 [vocabulary]."""
        return np.array([len(piece) for piece in self.table], np.uint16)

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.table:
            digest.update(len(piece).to_bytes(4, "little") + piece)
        return digest.hexdigest()

    def encode(self, text: bytes) -> list[np.ndarray]:
        """The tokens of a UTF-8 text, in pieces: `dtype` [tokens].

        Raises:
          CorpusError: if the tokens do not stand for this very text.
        """
        if self.library is None:
            return [np.frombuffer(text, np.uint8)]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns of every process that we start later
        pieces = list(_pieces(text))
        encoded = self.library.encode_batch([piece.decode() for piece in pieces], add_special_tokens=False)
        tokens = [np.array(found.ids, self.dtype) for found in encoded]
        for piece, ids in zip(pieces, tokens, strict=True):
            if (back := self.decode(ids)) != piece:
                at = next((i for i, (a, b) in enumerate(zip(piece, back, strict=False)) if a != b), 0)
                raise CorpusError(
                    f"tokenizer {self.name} does not fit: {piece[at : at + 20]!r} comes back from it as "
                    f"{back[at : at + 20]!r}, so use one that works on bytes, as corpus.tokenizer=bpe"
                )
        return tokens

    def decode(self, tokens: np.ndarray) -> bytes:
        """The text that tokens [n] stand for."""
        return b"".join([self.table[token] for token in tokens.tolist()])

    def ids(self, text: str) -> list[int]:
        """The tokens of any text, all in one."""
        if self.library is None:
            return list(text.encode())
        found: list[int] = self.library.encode(text, add_special_tokens=False).ids
        return found

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens stand for, where that is text."""
        return b"".join([self.table[token] for token in tokens]).decode("utf-8", "replace")

    def bytes_in(self, tokens: np.ndarray) -> int:
        """Bytes of the text that tokens [n] stand for.

        Raises:
          CorpusError: if there is a token beyond the vocabulary.
        """
        total = 0
        for start in range(0, len(tokens), 2**24):  # a file may be larger than the memory
            piece = tokens[start : start + 2**24]
            if (most := int(piece.max())) >= self.vocabulary:
                raise CorpusError(self._beyond(most))
            total += int(self.lengths[piece].sum(dtype=np.int64))
        return total

    def _beyond(self, token: int) -> str:
        said = f"token {token:,} is in the corpus, beyond the {self.vocabulary:,} of tokenizer {self.name}"
        if self.library is None:
            return f"{said}: set corpus.tokenizer to the tokenizer.json that these tokens were made with"
        return f"{said}: it was made with another tokenizer, so set corpus.tokenizer to that one's tokenizer.json"


BYTES = Tokenizer("bytes", tuple(bytes([byte]) for byte in range(256)))


def tokenizer_of(settings: CorpusSettings, train: bytes | None, cache: Path) -> Tokenizer:
    """The tokenizer that the settings name.

    Args:
      train: the text to train one on, if that is asked for; None where the corpus has tokens already.
      cache: where a trained one is kept.

    Raises:
      CorpusError: if its file can't be used, the library is missing, or it can't be trained.
    """
    if settings.tokenizer == "bytes":
        return BYTES
    if settings.tokenizer != "bpe":
        return tokenizer_at(Path(os.path.expanduser(settings.tokenizer)))
    if train is None:
        raise CorpusError("this corpus has tokens already: set corpus.tokenizer to the tokenizer.json of its tokens")
    return _wrapped("bpe", _bpe(train, settings.vocabulary, cache))


def file_sha256(settings: CorpusSettings) -> str | None:
    """Of the tokenizer's file, if the settings name one.

    Raises:
      CorpusError: if it can't be read.
    """
    if settings.tokenizer in ("bytes", "bpe"):
        return None
    return hashlib.sha256(_read(Path(os.path.expanduser(settings.tokenizer)))).hexdigest()


def tokenizer_at(path: Path) -> Tokenizer:
    """A `tokenizer.json` of the tokenizers library.

    Raises:
      CorpusError: if it can't be used, or the library is missing.
    """
    content = _read(path)
    try:
        library = _library().Tokenizer.from_str(content.decode())
    except CorpusError:
        raise
    except Exception as error:  # the library raises nothing more special
        raise CorpusError(f"tokenizer {path} is no tokenizer.json of the tokenizers library: {error}") from error
    return _wrapped(path.name, library)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"tokenizer {path} can't be read: {error.strerror} (corpus.tokenizer is bytes, bpe or a tokenizer.json)"
        ) from error


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise CorpusError(
            "corpus.tokenizer=bpe and tokenizer.json files need the extra text: make text, or pip install 'nas[text]'"
        ) from error
    return tokenizers


# A tokenizer of the corpus' own


def _bpe(train: bytes, vocabulary: int, cache: Path) -> Any:
    """Byte pair encoding (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909), of bytes as GPT-2 has it.

    Kept under the hash of what it was made from and the hash of its content, so that a damaged one is made again.
    """
    library = _library()
    made_from = hashlib.sha256(f"{vocabulary}:".encode() + train).hexdigest()[:16]
    for path in cache.glob(f"bpe-{made_from}-*.json"):
        content = path.read_bytes()
        if path.stem == f"bpe-{made_from}-{hashlib.sha256(content).hexdigest()[:16]}":
            return library.Tokenizer.from_str(content.decode())
    bpe = library.Tokenizer(library.models.BPE())
    bpe.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    bpe.train_from_iterator((piece.decode() for piece in _pieces(train)), trainer)
    content = bpe.to_str().encode()
    _keep(cache / f"bpe-{made_from}-{hashlib.sha256(content).hexdigest()[:16]}.json", content)
    return bpe


def _keep(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise CorpusError(f"the tokenizer can't be stored in {path.parent}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces that end with a line where there is one, and never within a character."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            end = text.rfind(b"\n", start, end) + 1 or end
            while text[end] & 0xC0 == 0x80:
                end -= 1
        yield text[start:end]
        start = end


# What a token stands for


def _wrapped(name: str, library: Any) -> Tokenizer:
    """Reads out of the library's tokenizer what each token stands for.

    Raises:
      CorpusError: if it has no token, or one that is too long.
    """
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True  # text that looks like a special token is text
    vocabulary, added = library.get_vocab(with_added_tokens=True), library.get_added_tokens_decoder()
    decoder = json.loads(library.to_str())["decoder"]
    by_letter = _byte_letters() if _has(decoder, "ByteLevel") else None
    pieces = {token: _bytes_of(text, by_letter) for text, token in vocabulary.items() if token not in added}
    pieces.update({token: b"" if kind.special else kind.content.encode() for token, kind in added.items()})
    if not pieces or max(map(len, pieces.values())) > _MOST_TOKEN_BYTES:
        raise CorpusError(f"tokenizer {name} has no tokens, or one of more than {_MOST_TOKEN_BYTES:,} bytes")
    return Tokenizer(name, tuple(pieces.get(token, b"") for token in range(max(pieces) + 1)), library)


def _bytes_of(text: str, by_letter: dict[str, int] | None) -> bytes:
    """Of a token as the vocabulary spells it: by GPT-2's letters for bytes, or SentencePiece's signs."""
    if by_letter is not None:
        return bytes(by_letter[letter] for letter in text) if by_letter.keys() >= set(text) else text.encode()
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


def _has(part: Any, kind: str) -> bool:
    """Whether a part of a tokenizer.json, or one within it, is of this kind."""
    if isinstance(part, list):
        return any(_has(each, kind) for each in part)
    return isinstance(part, dict) and (part.get("type") == kind or any(_has(each, kind) for each in part.values()))


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: itself where it can be seen, else one from 256 on, in order."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + number): byte for number, byte in enumerate(hidden)}
