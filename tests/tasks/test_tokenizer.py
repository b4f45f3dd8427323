"""From text to tokens and back, and one sentence where a tokenizer does not fit."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError
from nas.tasks.tokenizer import BYTES, Tokenizer, file_sha256, tokenizer_of

WORDS = ["".join(random.Random(number).choices("abcdefg", k=2 + number % 7)) for number in range(100)]
TEXT = (" ".join(WORDS) + "the cat sat, naïvely: 猫 🐈\n\n\tthen 12 more <|end|>\r\n" * 40).encode()
BPE = CorpusSettings(tokenizer="bpe", vocabulary=300)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bpe(cache: Path) -> Tokenizer:
    return tokenizer_of(BPE, TEXT, cache)


def whole(tokenizer: Tokenizer, text: bytes) -> np.ndarray:
    return np.concatenate(tokenizer.encode(text))


def from_json(path: Path, library: tokenizers.Tokenizer) -> Tokenizer:
    library.save(str(path))
    return tokenizer_of(CorpusSettings(tokenizer=str(path)), None, path.parent)


def test_bytes_are_themselves() -> None:
    assert whole(BYTES, TEXT).tobytes() == TEXT == BYTES.decode(np.frombuffer(TEXT, np.uint8))
    assert (BYTES.vocabulary, BYTES.dtype, BYTES.bytes_in(whole(BYTES, TEXT))) == (256, "uint8", len(TEXT))


@pytest.mark.parametrize("text", [TEXT, b"", "🐈".encode() * 200_000, bytes(range(128)) * 3, b"x" * 300_000 + b"\ny"])
def test_a_trained_one_gives_any_text_back(bpe: Tokenizer, text: bytes) -> None:
    pieces = bpe.encode(text)
    assert b"".join(map(bpe.decode, pieces)) == text
    assert sum(map(bpe.bytes_in, pieces)) == len(text)
    assert all(piece.dtype == np.uint16 for piece in pieces)


def test_a_trained_one_joins_what_is_frequent(bpe: Tokenizer) -> None:
    assert bpe.vocabulary == 300 and len(whole(bpe, TEXT)) < len(TEXT) / 2
    assert {piece for piece in bpe.table if len(piece) == 1} == {bytes([byte]) for byte in range(256)}
    assert all(bpe.table)


def test_its_own_library_spells_its_tokens_alike(bpe: Tokenizer) -> None:
    ids = whole(bpe, TEXT)
    assert bpe.library.decode(ids.tolist(), skip_special_tokens=False).encode() == TEXT


def test_training_is_a_function_of_text_and_size(bpe: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer_of(BPE, TEXT, tmp_path).sha256 == bpe.sha256
    assert tokenizer_of(BPE, TEXT + b"another one", tmp_path).sha256 != bpe.sha256 or len(list(tmp_path.iterdir())) == 2


def test_a_kept_one_is_used_again_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    first = tokenizer_of(BPE, TEXT, tmp_path)
    (kept,) = tmp_path.iterdir()
    changed = kept.stat().st_mtime_ns
    assert tokenizer_of(BPE, TEXT, tmp_path).sha256 == first.sha256 and kept.stat().st_mtime_ns == changed
    kept.write_text(kept.read_text().replace('"the"', '"eht"', 1) + " ")
    assert tokenizer_of(BPE, TEXT, tmp_path).sha256 == first.sha256 and kept.stat().st_mtime_ns != changed


# Files


def byte_level(cache: Path) -> tokenizers.Tokenizer:
    (kept,) = cache.glob("bpe-*.json")
    return tokenizers.Tokenizer.from_file(str(kept))


def test_a_special_token_has_no_bytes_and_text_that_looks_like_one_is_text(
    bpe: Tokenizer, cache: Path, tmp_path: Path
) -> None:
    library = byte_level(cache)
    library.add_special_tokens(["<|end|>"])
    library.add_tokens(["naïvely"])
    found = from_json(tmp_path / "tokenizer.json", library)
    assert found.vocabulary == 302 and found.table[300:] == (b"", "naïvely".encode())
    assert found.sha256 != bpe.sha256
    ids = whole(found, TEXT)
    assert 300 not in ids and 301 in ids and found.decode(ids) == TEXT
    assert found.bytes_in(np.array([300, 301, 300])) == len("naïvely".encode())


def test_byte_fallback_is_understood(tmp_path: Path) -> None:
    letters = {"▁": 256, "a": 257, "b": 258, "ab": 259, "▁ab": 260}
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | letters
    model = tokenizers.models.BPE(vocabulary, [("a", "b"), ("▁", "ab")], byte_fallback=True)
    library = tokenizers.Tokenizer(model)
    library.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    library.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    found = from_json(tmp_path / "tokenizer.json", library)
    assert whole(found, "ab ab猫".encode()).tolist() == [259, 260, *"猫".encode()]


def test_one_that_loses_text_is_refused_with_what_it_lost(tmp_path: Path) -> None:
    model = tokenizers.models.WordLevel({"the": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]")
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    found = from_json(tmp_path / "words.json", library)
    with pytest.raises(CorpusError, match=r"^tokenizer words.json does not fit: b' cat' comes back .* b'cat'"):
        found.encode(b"the cat")
    with pytest.raises(CorpusError, match=r"^tokenizer words.json does not fit: .*corpus.tokenizer=bpe$"):
        found.encode(b"dog")


@pytest.mark.parametrize("content", ["", "{}", "[1, 2", json.dumps({"model": {"type": "BPE"}})])
def test_what_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(CorpusError, match=r"^tokenizer .*tokenizer.json is no tokenizer.json of the tokenizers lib"):
        tokenizer_of(CorpusSettings(tokenizer=str(path)), TEXT, tmp_path)


def test_a_missing_file_is_told_what_can_stand_there() -> None:
    for settings in (CorpusSettings(tokenizer="gpt2"), CorpusSettings(tokenizer="no/such/file.json")):
        with pytest.raises(CorpusError, match=r"can't be read: No such file .*corpus.tokenizer is bytes, bpe or a"):
            tokenizer_of(settings, TEXT, Path())
        with pytest.raises(CorpusError, match=r"can't be read: No such file"):
            file_sha256(settings)


def test_a_token_beyond_the_vocabulary_is_named() -> None:
    with pytest.raises(CorpusError, match=r"^token 256 is in the corpus, beyond the 256 of tokenizer bytes: set corp"):
        BYTES.bytes_in(np.array([3, 256], np.uint16))


def test_without_the_library_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, bpe: Tokenizer
) -> None:
    byte_level(cache).save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for name in ("bpe", str(tmp_path / "tokenizer.json")):
        with pytest.raises(CorpusError, match=r"need the extra text: make text, or pip install 'nas\[text\]'$"):
            tokenizer_of(CorpusSettings(tokenizer=name), TEXT, tmp_path)
