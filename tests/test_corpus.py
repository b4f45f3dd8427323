"""The text: the same bytes in the same splits, or one sentence about what is wrong with it."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from nas.errors import UserError
from nas.settings import CorpusSettings
from nas.tasks.corpora import stdlib
from nas.tasks.corpus import SPLITS, Corpus, CorpusError, prepare
from nas.tasks.floors import bigram_bits_per_byte
from nas.tasks.reader import read_tokens


def text(size: int, seed: int = 0) -> bytes:
    return bytes(random.Random(seed).choices(b"abcdefgh \n", k=size))


@pytest.fixture(scope="module")
def big_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    for number in range(60):
        path = folder / f"part{number % 3}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text(5_000, number))
    return folder


@pytest.fixture
def folder(big_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for path in big_folder.rglob("*.txt"):
        copy = tmp_path / "text" / path.relative_to(big_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "text"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def of(path: Path) -> CorpusSettings:
    return CorpusSettings("text", str(path))


def split_bytes(corpus: Corpus) -> dict[str, bytes]:
    return {split: read_tokens(corpus.file(split)).tobytes() for split in SPLITS}


# What is used


def test_a_folder_is_split_by_file(big_folder: Path, cache: Path) -> None:
    corpus = prepare(of(big_folder), cache)
    files = [path.read_bytes() for path in big_folder.rglob("*.txt")]
    splits = split_bytes(corpus)
    for content in files:
        assert sum(content in split for split in splits.values()) == 1
    assert sum(map(len, splits.values())) == sum(map(len, files)) + len(files) - len(SPLITS), "newlines join files"
    assert corpus.sizes == {split: len(content) for split, content in splits.items()}
    assert corpus.sizes["train"] > 5 * max(corpus.sizes["validation"], corpus.sizes["test"])
    assert read_tokens(corpus.file("train")).dtype == np.uint8 and not read_tokens(corpus.file("train")).flags.writeable


def test_a_new_file_moves_no_other(folder: Path, cache: Path) -> None:
    before = split_bytes(prepare(of(folder), cache))
    contents = {path: path.read_bytes() for path in folder.rglob("*.txt")}
    where = {path: [split for split in SPLITS if content in before[split]] for path, content in contents.items()}
    for number in range(20):
        (folder / f"new{number}.txt").write_bytes(b"%d\n" % number * 500)
    after = split_bytes(prepare(of(folder), cache))
    assert after != before
    assert {path: [split for split in SPLITS if contents[path] in after[split]] for path in contents} == where


def test_a_folder_may_be_moved(folder: Path, cache: Path) -> None:
    before = prepare(of(folder), cache)
    assert prepare(of(folder.rename(folder.parent / "elsewhere")), cache).sha256 == before.sha256


def test_a_single_file_holds_out_its_end(tmp_path: Path, cache: Path) -> None:
    content = text(300_000)
    (tmp_path / "text.txt").write_bytes(content)
    corpus = prepare(of(tmp_path / "text.txt"), cache)
    splits = split_bytes(corpus)
    assert b"".join(splits.values()) == content
    assert corpus.sizes == {"train": 255_000, "validation": 15_000, "reserve": 15_000, "test": 15_000}
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "other name.txt").write_bytes(content)
    assert prepare(of(tmp_path / "alone"), cache).sha256 == corpus.sha256, "a folder of one file is that file"


def test_the_standard_library_is_there(cache: Path) -> None:
    corpus = prepare(CorpusSettings(), cache)
    assert corpus.name == "stdlib" and corpus.sizes["train"] > 5_000_000 and corpus.sizes["validation"] > 100_000
    assert 3 < corpus.bigram_bits_per_byte < 4
    assert b"import " in read_tokens(corpus.file("validation")).tobytes()


def test_a_library_below_a_folder_called_tests_is_a_library(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "tests"
    (library / "json" / "tests").mkdir(parents=True)
    for number in range(120):
        (library / "json" / f"module{number}.py").write_bytes(text(5_000, number))
        (library / "json" / "tests" / f"test{number}.py").write_text("skipped")
    (library / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n")
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    corpus = prepare(CorpusSettings(), cache)
    assert sum(corpus.sizes.values()) == 120 * 5_001 - len(SPLITS)
    assert not any(b"skipped" in content or b"latin" in content for content in split_bytes(corpus).values())


def test_home_is_understood(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert prepare(CorpusSettings("text", "~/text"), cache).sha256 == prepare(of(folder), cache).sha256


# What is not


def refusal(path: Path, cache: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        prepare(of(path), cache)
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    assert not cache.exists(), "nothing is stored of what is refused"
    return str(caught.value)


@pytest.mark.parametrize("name", ["missing", "~nobody-of-this-name/text", "x" * 300, "text/0.txt/below"])
def test_a_missing_text(tmp_path: Path, cache: Path, name: str) -> None:
    path = Path(name) if name.startswith("~") else tmp_path / name
    assert refusal(path, cache) == f"corpus path {path} does not exist"


def test_an_empty_folder(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text" / "sub").mkdir(parents=True)
    assert refusal(tmp_path / "text", cache) == f"corpus folder {tmp_path / 'text'} has no files"


@pytest.mark.parametrize("files", [1, 3])
def test_empty_files(tmp_path: Path, cache: Path, files: int) -> None:
    for number in range(files):
        (tmp_path / f"{number}.txt").write_bytes(b"")
    path = tmp_path / "0.txt" if files == 1 else tmp_path
    assert refusal(path, cache) == f"the corpus ({path}) is empty: give a text of at least 0.2 MB"


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"abc\xe9", b"\xed\xa0\x80", b"\x80"])
def test_what_is_not_utf8_is_named(folder: Path, cache: Path, bad: bytes) -> None:
    (folder / "part1" / "bad.bin").write_bytes(b"good " + bad)
    message = refusal(folder, cache)
    assert f"{folder / 'part1' / 'bad.bin'} is not UTF-8 (byte" in message and "remove or convert it" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(folder: Path, cache: Path) -> None:
    (folder / "part1" / "secret.txt").write_text("x")
    (folder / "part1" / "secret.txt").chmod(0)
    assert "secret.txt can't be read: Permission denied" in refusal(folder, cache)


def test_what_can_not_be_read_is_named(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for root."""
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "7.txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "7.txt can't be read: Permission denied" in refusal(folder, cache)


@pytest.mark.parametrize("size", [1, 1000, 150_000])
def test_a_small_file_is_told_what_is_needed(tmp_path: Path, cache: Path, size: int) -> None:
    (tmp_path / "small.txt").write_bytes(text(size))
    message = refusal(tmp_path / "small.txt", cache)
    assert "is too small (train" in message and "100,000 bytes to train and 10,000 in each held-out split" in message


def test_of_a_few_large_files_the_end_is_held_out(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(text(500_000))
    corpus = prepare(of(tmp_path), cache)
    assert b"".join(split_bytes(corpus).values()) == text(500_000) + b"\n" + text(500_000)
    assert min(corpus.sizes.values()) >= 50_000


def test_a_name_that_is_no_utf8_is_a_name(folder: Path, cache: Path) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.txt")).write_bytes(text(2_000, 99))
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    assert prepare(of(folder), cache).sizes["train"] > 100_000


def test_a_cache_that_can_not_be_written_is_one_sentence(big_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(CorpusError, match=r"^the corpus can't be stored in .*cache: "):
        prepare(of(big_folder), tmp_path / "cache")


# The cache


def test_the_name_is_that_of_the_content(folder: Path, cache: Path) -> None:
    first, again = prepare(of(folder), cache), prepare(of(folder), cache)
    assert first == again and first.sha256[:16] in first.folder and len(first.sha256) == 64
    changed = next(folder.rglob("*.txt"))
    changed.write_bytes(changed.read_bytes()[:-2] + b"#\n")
    other = prepare(of(folder), cache)
    assert other.sha256 != first.sha256 and other.folder != first.folder
    assert split_bytes(first) != split_bytes(other)


def test_an_unchanged_cache_is_not_written_again(folder: Path, cache: Path) -> None:
    stored = Path(prepare(of(folder), cache).folder)
    before = {path.name: path.stat().st_mtime_ns for path in stored.iterdir()}
    prepare(of(folder), cache)
    assert {path.name: path.stat().st_mtime_ns for path in stored.iterdir()} == before
    assert set(before) == {*(f"{split}.bin" for split in SPLITS), "token_bytes.bin", "corpus.json"}


@pytest.mark.parametrize("file", ["train.bin", "validation.bin", "test.bin", "token_bytes.bin", "corpus.json"])
@pytest.mark.parametrize("damage", ["one byte", "cut", "longer", "gone", "empty"])
def test_a_damaged_cache_is_mended(folder: Path, cache: Path, file: str, damage: str) -> None:
    first = prepare(of(folder), cache)
    path, splits = Path(first.folder) / file, split_bytes(first)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = bytes([content[0] ^ 1]) + content[1:]
        damaged = {"one byte": changed, "cut": content[:-1], "longer": content + b"x", "empty": b""}
        path.write_bytes(damaged[damage])
    again = prepare(of(folder), cache)
    assert again == first and split_bytes(again) == splits
    assert Corpus(**json.loads((Path(again.folder) / "corpus.json").read_text())) == first


def test_a_cache_may_be_moved(folder: Path, cache: Path) -> None:
    first = prepare(of(folder), cache)
    splits = split_bytes(first)
    moved = cache.rename(cache.parent / "moved")
    again = prepare(of(folder), moved)
    assert Path(again.folder).parent == moved and split_bytes(again) == splits and again.sha256 == first.sha256


# The floor


def test_the_bigram_floor_is_its_definition() -> None:
    train, held_out = (np.frombuffer(text(400, seed), np.uint8) for seed in (0, 1))
    pairs = list(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))
    bits = []
    for first, second in zip(held_out[:-1].tolist(), held_out[1:].tolist(), strict=True):
        seen = pairs.count((first, second)) + 1 / 256
        bits.append(-np.log2(seen / (sum(a == first for a, _ in pairs) + 1)))
    assert bigram_bits_per_byte(train, held_out) == pytest.approx(np.mean(bits))


def test_an_untrained_bigram_knows_nothing() -> None:
    train, held_out = np.zeros(2, np.uint8), np.arange(1, 200, dtype=np.uint8)
    assert bigram_bits_per_byte(train, held_out) == pytest.approx(8)
