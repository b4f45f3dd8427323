"""Every kind of corpus, with every kind of tokenizer: the same splits, or one sentence about what is wrong."""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from nas.settings import CorpusSettings
from nas.tasks.corpora import KINDS
from nas.tasks.corpus import SPLITS, Corpus, CorpusError, prepare
from nas.tasks.floors import bigram_bits_per_byte
from nas.tasks.prepared import kept_tokenizer
from nas.tasks.reader import read_tokens

WORDS = ["".join(random.Random(number).choices("abcdefgäß猫", k=2 + number % 7)) for number in range(400)]


def text(size: int, seed: int = 0) -> str:
    generator = random.Random(seed)
    return "".join(f"{generator.choice(WORDS)} " for _ in range(size // 7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for number in range(100):  # enough of them to hold whole ones out
        (folder / f"{number}.txt").write_text(text(6_000, number))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer_json(folder: Path, cache: Path) -> Path:
    """A byte-level BPE as GPT-2's, with a token that ends a document."""
    prepare(CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=400), cache)
    (kept,) = cache.glob("bpe-*.json")
    library = tokenizers.Tokenizer.from_file(str(kept))
    library.add_special_tokens(["<|endoftext|>"])
    library.save(str(cache / "tokenizer.json"))
    return cache / "tokenizer.json"


def texts_of(corpus: Corpus, tokenizer: Path | None = None) -> dict[str, bytes]:
    tokens = {split: read_tokens(corpus.file(split), corpus.dtype) for split in SPLITS}
    if tokenizer is None:
        return {split: part.tobytes() for split, part in tokens.items()}
    library = tokenizers.Tokenizer.from_file(str(tokenizer))
    return {split: library.decode(part.tolist(), skip_special_tokens=True).encode() for split, part in tokens.items()}


# Text of the same splits whatever its tokens


def test_tokens_stand_for_the_bytes(folder: Path, cache: Path, tokenizer_json: Path) -> None:
    settings = CorpusSettings("text", str(folder))
    plain = prepare(settings, cache)
    trained = prepare(CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=400), cache)
    given = prepare(CorpusSettings("text", str(folder), tokenizer=str(tokenizer_json)), cache)
    for corpus, vocabulary in ((trained, 400), (given, 401)):
        assert texts_of(corpus, tokenizer_json) == texts_of(plain)
        assert corpus.text_bytes == plain.text_bytes == plain.sizes
        assert corpus.bigram_bits_per_byte == plain.bigram_bits_per_byte
        assert corpus.compressed_bits_per_byte == plain.compressed_bits_per_byte
        assert (corpus.vocabulary, corpus.dtype) == (vocabulary, "uint16")
        assert corpus.sizes["train"] < plain.sizes["train"] / 2
        lengths = read_tokens(corpus.token_bytes, "uint16")
        assert len(lengths) == vocabulary
        for split in SPLITS:
            tokens = read_tokens(corpus.file(split), "uint16")
            assert lengths[tokens].sum() == corpus.text_bytes[split] and len(tokens) == corpus.sizes[split]
    assert len({plain.sha256, trained.sha256, given.sha256}) == 3, "the tokenizer is part of the name"
    assert (read_tokens(plain.token_bytes, "uint16") == np.ones(256)).all()


def test_the_tokenizer_learns_from_the_training_split_alone(folder: Path, tmp_path: Path) -> None:
    corpus = prepare(CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=300), tmp_path)
    (kept,) = tmp_path.glob("bpe-*.json")
    again = prepare(CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=300), tmp_path / "other")
    test = texts_of(corpus, kept)["test"]
    held_out = next(path for path in folder.iterdir() if path.read_bytes() in test)
    other = tmp_path / "text"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_text("zzzz " * 3000 if path.name == held_out.name else path.read_text())
    changed = prepare(CorpusSettings("text", str(other), tokenizer="bpe", vocabulary=300), tmp_path)
    assert changed.tokenizer_sha256 == corpus.tokenizer_sha256 == again.tokenizer_sha256
    assert changed.sha256 != corpus.sha256 == again.sha256 and list(tmp_path.glob("bpe-*.json")) == [kept]


def test_a_large_vocabulary_has_wide_tokens(folder: Path, tmp_path: Path) -> None:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    fillers = {f"filler{number}": 256 + number for number in range(70_000)}
    library = tokenizers.Tokenizer(tokenizers.models.BPE({x: i for i, x in enumerate(alphabet)} | fillers, []))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    library.save(str(tmp_path / "wide.json"))
    corpus = prepare(CorpusSettings("text", str(folder), tokenizer=str(tmp_path / "wide.json")), tmp_path / "cache")
    assert (corpus.vocabulary, corpus.dtype) == (70_256, "uint32")


def test_what_is_whole_is_not_prepared_again(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=400)
    first = prepare(settings, cache)
    monkeypatch.setattr("nas.tasks.corpus.split_text", None)
    assert prepare(settings, cache) == first
    first.file("test").chmod(0o644)
    content = bytearray(first.file("test").read_bytes())
    content[7] ^= 1
    first.file("test").write_bytes(content)
    with pytest.raises(TypeError):
        prepare(settings, cache)
    monkeypatch.undo()
    assert prepare(settings, cache) == first


def test_of_what_was_tampered_with_and_is_gone_at_its_source_one_sentence(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text(text(300_000))
    corpus = prepare(CorpusSettings("text", str(source)), tmp_path / "cache")
    corpus.file("train").chmod(0o644)
    corpus.file("train").write_bytes(b"x" * corpus.sizes["train"])
    source.unlink()
    with pytest.raises(CorpusError, match=r"text.txt does not exist$"):
        prepare(CorpusSettings("text", str(source)), tmp_path / "cache")


def test_its_tokenizer_is_kept_with_it(folder: Path, cache: Path) -> None:
    corpus = prepare(CorpusSettings("text", str(folder), tokenizer="bpe", vocabulary=400), cache)
    kept = kept_tokenizer(asdict(corpus))
    ids = kept.ids(WORDS[0] + " 猫")
    assert kept.text(ids) == WORDS[0] + " 猫" and max(ids) < corpus.vocabulary
    assert kept_tokenizer({"sha256": "of an earlier search"}).ids("é") == [0xC3, 0xA9]
    with pytest.raises(CorpusError, match="no longer that of the corpus"):
        kept_tokenizer({**asdict(corpus), "tokenizer_sha256": "00"})


# Tokens that are there already


def tokens_of(content: str, tokenizer: Path) -> np.ndarray:
    library = tokenizers.Tokenizer.from_file(str(tokenizer))
    return np.array(library.encode(content).ids, np.uint16)


def llm_c(tokens: np.ndarray, count: int | None = None, magic: int = 20240520, version: int = 1) -> bytes:
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    return header.tobytes() + tokens.astype("<u2").tobytes()


@pytest.fixture(scope="module")
def documents(tokenizer_json: Path) -> np.ndarray:
    parts = [np.append(tokens_of(text(8_000, number), tokenizer_json), 400) for number in range(60)]
    return np.concatenate(parts).astype(np.uint16)


@pytest.mark.parametrize("write", [lambda tokens: tokens.tobytes(), llm_c], ids=["nanogpt", "llm.c"])
def test_a_file_of_tokens(
    write: Callable[[np.ndarray], bytes], documents: np.ndarray, tokenizer_json: Path, tmp_path: Path
) -> None:
    (tmp_path / "data.bin").write_bytes(write(documents))
    settings = CorpusSettings("token_bin", str(tmp_path / "data.bin"), tokenizer=str(tokenizer_json))
    corpus = prepare(settings, tmp_path / "cache")
    parts = [read_tokens(corpus.file(split), corpus.dtype) for split in SPLITS]
    np.testing.assert_array_equal(np.concatenate(parts), documents)
    texts = texts_of(corpus, tokenizer_json)
    assert {split: len(part) for split, part in texts.items()} == corpus.text_bytes, "the ends of documents have none"
    train, validation = (np.frombuffer(texts[split], np.uint8) for split in SPLITS[:2])
    assert corpus.bigram_bits_per_byte == bigram_bits_per_byte(train, validation)
    assert prepare(settings, tmp_path / "cache") == corpus


def test_a_folder_of_train_and_val(documents: np.ndarray, tokenizer_json: Path, tmp_path: Path) -> None:
    """nanoGPT's folder: what it calls `val` is never trained on."""
    (tmp_path / "train.bin").write_bytes(documents[:120_000].tobytes())
    (tmp_path / "val.bin").write_bytes(documents[120_000:].tobytes())
    (tmp_path / "meta.pkl").write_bytes(b"something else")
    corpus = prepare(CorpusSettings("token_bin", str(tmp_path), tokenizer=str(tokenizer_json)), tmp_path / "cache")
    parts = {split: read_tokens(corpus.file(split), corpus.dtype) for split in SPLITS}
    np.testing.assert_array_equal(parts["train"], documents[:120_000])
    np.testing.assert_array_equal(np.concatenate([parts[split] for split in SPLITS[1:]]), documents[120_000:])


def test_many_files_are_split_by_file(documents: np.ndarray, tokenizer_json: Path, tmp_path: Path) -> None:
    files = np.array_split(documents, 100)
    for number, part in enumerate(files):
        (tmp_path / f"shard{number}.bin").write_bytes(llm_c(part))
    corpus = prepare(CorpusSettings("token_bin", str(tmp_path), tokenizer=str(tokenizer_json)), tmp_path / "cache")
    parts = [read_tokens(corpus.file(split), corpus.dtype).tobytes() for split in SPLITS]
    for part in files:
        assert sum(part.tobytes() in split for split in parts) == 1
    assert not documents.tobytes().startswith(parts[0]), "files of all parts are held out"


def test_raw_bytes_as_tokens_need_no_tokenizer(tmp_path: Path) -> None:
    content = np.frombuffer(text(300_000).encode(), np.uint8)
    (tmp_path / "data.bin").write_bytes(content.astype(np.uint16).tobytes())
    corpus = prepare(CorpusSettings("token_bin", str(tmp_path / "data.bin")), tmp_path / "cache")
    assert (corpus.dtype, corpus.vocabulary) == ("uint8", 256)
    assert b"".join(texts_of(corpus).values()) == content.tobytes()


TOKENS = np.arange(200_000, dtype=np.uint16) % 256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TOKENS.tobytes()[:-1], "has 399,999 bytes, an odd number, and tokens of two: it is damaged"),
        (llm_c(TOKENS, count=200_001), "has 200,000 tokens where its header says 200,001: it is damaged"),
        (llm_c(TOKENS)[:-10], "has 199,995 tokens where its header says 200,000"),
        (llm_c(TOKENS)[:600], "ends within its header: it is damaged"),
        (llm_c(TOKENS, magic=20240521), "begins with the number 20240521, where llm.c's tokens have 20240520"),
        (llm_c(TOKENS, magic=20240801), "begins with the number 20240801, that of uint32 tokens, where"),
        (llm_c(TOKENS, version=2), "has version 2 of llm.c's format, where 1 is known"),
        (
            np.append(TOKENS, 50_256).astype(np.uint16).tobytes(),
            "set corpus.tokenizer to the tokenizer.json that these",
        ),
    ],
)
def test_a_damaged_file_is_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        prepare(CorpusSettings("token_bin", str(tmp_path / "data.bin")), tmp_path / "cache")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_tokens_of_another_tokenizer(documents: np.ndarray, tokenizer_json: Path, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(np.append(documents, 40_000).astype(np.uint16).tobytes())
    with pytest.raises(CorpusError, match=r"^token 40,000 is in the corpus, beyond the 401 of tokenizer tok"):
        prepare(
            CorpusSettings("token_bin", str(tmp_path / "data.bin"), tokenizer=str(tokenizer_json)), tmp_path / "cache"
        )


def test_a_folder_without_tokens(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("text")
    with pytest.raises(CorpusError, match=r"^corpus folder .* has no \*\.bin in it$"):
        prepare(CorpusSettings("token_bin", str(tmp_path)), tmp_path / "cache")


# The `datasets` library, on local files


ROWS = [{"text": text(8_000, number), "id": number} for number in range(60)] + [{"text": None, "id": 60}]


def parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "train.parquet")


def jsonl(folder: Path) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize("write", [parquet, jsonl])
@pytest.mark.parametrize("single", [True, False], ids=["file", "folder"])
def test_a_local_data_set(write: Callable[[Path], None], single: bool, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    path = next((tmp_path / "data").iterdir()) if single else tmp_path / "data"
    corpus = prepare(CorpusSettings("huggingface", str(path)), tmp_path / "cache")
    splits = texts_of(corpus)
    for row in ROWS[:-1]:
        assert sum(str(row["text"]).encode() in split for split in splits.values()) == 1
    assert prepare(CorpusSettings("huggingface", str(path)), tmp_path / "cache") == corpus


def test_no_more_is_taken_than_asked_for(tmp_path: Path) -> None:
    jsonl(tmp_path)
    corpus = prepare(CorpusSettings("huggingface", str(tmp_path / "train.jsonl"), megabytes=0.2), tmp_path / "cache")
    assert 200_000 <= sum(corpus.text_bytes.values()) < 210_000


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"column": "body"}, "has no column body: it has text, id"),
        ({"column": "id"}, "holds no text: set corpus.column"),
        ({"split": "dev"}, "can't be read: "),
    ],
)
def test_a_data_set_that_is_otherwise(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    jsonl(tmp_path)
    with pytest.raises(CorpusError) as caught:
        prepare(CorpusSettings("huggingface", str(tmp_path), **changed), tmp_path / "cache")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_library_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jsonl(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"^corpus=huggingface needs the extra text: make text, or pip install"):
        prepare(CorpusSettings("huggingface", str(tmp_path)), tmp_path / "cache")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_named(kind: str) -> None:
    assert CorpusSettings(kind, None if kind == "stdlib" else "somewhere").kind == kind
