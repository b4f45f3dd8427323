"""What machines share by a store: a journal that follows, one driver, a corpus and checkpoints that are fetched."""

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from common import SPACE, ungated_spec
from fsspec.implementations.memory import MemoryFileSystem
from test_trial import SETTINGS

from nas.commands.kept_noise import bring_noise, fetch_noise
from nas.journal import Journal, JournalError
from nas.sandbox import Box
from nas.shared_trial import run_shared_trial, shared
from nas.sharing import corpus as shared_corpus
from nas.sharing import journal as shared_journal
from nas.sharing.checkpoints import Shelf
from nas.sharing.corpus import bring, fetched
from nas.sharing.journal import DRIVER, Copy, Mirror, Taken, fetch, read
from nas.store import Store, StoreError
from nas.tasks.corpus import Corpus
from nas.trial import TrialSpec

SOURCE = SPACE.baselines()["linear_attention"].source


class Moody(MemoryFileSystem):
    """A store that hangs or fails for as long as it is told to."""

    protocol = "moody"
    cachable = False
    hanging = threading.Event()  # set: it does not hang
    failing = False
    forgetful = False  # whether what fails has arrived

    def pipe_file(self, *arguments: Any, **options: Any) -> None:
        if self.forgetful:
            with suppress(FileExistsError):
                super().pipe_file(*arguments, **options)
        self.suffer()
        super().pipe_file(*arguments, **options)

    def put_file(self, *arguments: Any, **options: Any) -> None:
        self.suffer()
        super().put_file(*arguments, **options)

    def suffer(self) -> None:
        self.hanging.wait(60)
        if self.failing:
            raise OSError("no route to host")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("moody", Moody, clobber=True)
    Moody.hanging.set()
    Moody.failing = Moody.forgetful = False
    monkeypatch.setattr("nas.store._LONGEST_WAIT", 0.01)
    monkeypatch.setattr(shared_journal, "_PIECE_SECONDS", 0.05)
    monkeypatch.setattr(shared_journal, "_BEAT_SECONDS", 0.05)


@pytest.fixture
def store() -> Store:
    return Store(f"moody://{uuid.uuid4().hex}")


class Driver:
    """One that runs a search in a folder of its own machine."""

    def __init__(self, store: Store, folder: Path, watch: float = 0.3):
        self.said: list[str] = []
        self.ended: list[str] = []
        copy = fetch(store, folder / "journal.jsonl", self.said.append, watch)
        self.journal = Journal(folder / "journal.jsonl")
        self.mirror = Mirror(store, self.journal, copy, self.said.append)

    def begin(self) -> "Driver":
        self.mirror.claim()
        self.mirror.start(self.ended.append)
        return self

    def write(self, *numbers: int) -> None:
        for number in numbers:
            self.journal.append({"event": "trial", "number": number})

    def close(self, patience: float = 20.0) -> int:
        missing = self.mirror.close(patience)
        self.journal.close()
        return missing

    def die(self) -> None:
        """As by kill -9: nothing more is sent, nobody is told."""
        self.mirror._abandoned.set()
        self.mirror._closing.set()
        assert self.mirror._thread
        self.mirror._thread.join()
        self.journal.close()


def numbers(content: bytes) -> list[int]:
    return [json.loads(line)["number"] for line in content.splitlines()]


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# The journal


@pytest.mark.parametrize("url", ["file://{tmp}/shared", "s3://shared/{name}", "moody://{name}"])
def test_a_journal_is_mirrored_byte_for_byte(
    url: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("s3"):
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
    there = Store(url.format(tmp=tmp_path, name=uuid.uuid4().hex))
    driver = Driver(there, tmp_path / "here").begin()
    for number in range(30):
        driver.write(number)
        time.sleep(0.01)
    assert driver.close() == 0 and driver.said == []
    content, pieces = read(there)
    assert content == (tmp_path / "here" / "journal.jsonl").read_bytes() and numbers(content) == list(range(30))
    assert pieces > 2 and not there.has(DRIVER)
    assert Driver(there, tmp_path / "elsewhere").journal.size == len(content)
    assert (tmp_path / "elsewhere" / "journal.jsonl").read_bytes() == content


def test_a_long_journal_is_cut_at_its_lines(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_journal, "_PIECE_BYTES", 100)
    driver = Driver(store, tmp_path)
    driver.write(*range(10))
    driver.journal.append({"event": "trial", "number": 10, "text": "x" * 1000})
    assert driver.begin().close() == 0
    pieces = [store.get(f"journal/{name}") or b"" for name in store.names("journal")]
    assert all(piece.endswith(b"\n") for piece in pieces) and len(pieces) > 4
    assert numbers(read(store)[0]) == list(range(11))


def test_a_driver_that_died_is_followed_by_another(store: Store, tmp_path: Path) -> None:
    first = Driver(store, tmp_path / "one").begin()
    first.write(1, 2)
    wait_until(lambda: not first.mirror.missing)
    first.die()
    second = Driver(store, tmp_path / "two")
    assert second.said == [f"watching {store.url} for 0.3 s: does the search's last driver still run?"]
    second.begin().write(3)
    assert second.close() == 0 and numbers(read(store)[0]) == [1, 2, 3]
    back = Driver(store, tmp_path / "one").begin()
    back.write(4)
    assert back.close() == 0 and numbers((tmp_path / "one" / "journal.jsonl").read_bytes()) == [1, 2, 3, 4]


def test_on_its_own_machine_it_goes_on_at_once_with_what_it_had_not_sent(store: Store, tmp_path: Path) -> None:
    first = Driver(store, tmp_path).begin()
    first.die()
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"event": "trial", "number": 1})
    journal.close()
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"event": "tri')  # torn by the kill
    again = Driver(store, tmp_path, watch=60).begin()
    assert again.close() == 0 and numbers(read(store)[0]) == [1] and again.said == []


def test_a_second_driver_is_refused_while_the_first_one_lives(store: Store, tmp_path: Path) -> None:
    first = Driver(store, tmp_path / "one").begin()
    with pytest.raises(Taken, match=f"another driver, on {os.uname().nodename}, runs the search in {store.url}: wait"):
        Driver(store, tmp_path / "two", watch=5)
    assert not (tmp_path / "two").exists()
    first.write(1)
    assert first.close() == 0 and first.ended == []


def test_of_two_that_begin_at_once_one_is_refused(store: Store, tmp_path: Path) -> None:
    one, two = Driver(store, tmp_path / "one"), Driver(store, tmp_path / "two")
    one.begin()
    with pytest.raises(Taken, match=f"there is a search in {store.url}: go on with resume="):
        two.begin()
    one.write(1)
    assert one.close() == 0 and one.ended == []


@pytest.mark.parametrize("busy", [True, False], ids=["writing", "waiting for a long trial"])
def test_a_driver_that_was_cut_off_learns_that_another_has_gone_on(busy: bool, store: Store, tmp_path: Path) -> None:
    Moody.hanging.set()
    first = Driver(store, tmp_path / "one").begin()
    first.write(1)
    wait_until(lambda: not first.mirror.missing)
    copy = Copy(len(store.names("journal")), len(read(store)[0]))
    second = Mirror(store, Journal(tmp_path / "two" / "journal.jsonl"), copy, print)
    second.claim()
    if busy:
        first.write(2)
    wait_until(lambda: first.ended)
    assert first.ended == [first.mirror.taken] and first.ended[0].startswith(
        "another driver has gone on with the search"
    )
    second.close()
    if busy:
        second = Driver(store, tmp_path / "three").begin()
        second.write(3)
        assert first.close() > 0 and second.close() == 0
        with pytest.raises(JournalError, match="differ from line 2 on, since it was gone on with elsewhere: move the"):
            Driver(store, tmp_path / "one")


def test_a_store_that_hangs_holds_up_nothing(store: Store, tmp_path: Path) -> None:
    driver = Driver(store, tmp_path).begin()
    Moody.hanging.clear()
    began = time.monotonic()
    driver.write(*range(200))
    assert time.monotonic() - began < 5
    assert driver.mirror.close(0.3) > 0
    bytes_missing = f"{driver.mirror.missing:,} bytes of the journal are not in {store.url} yet"
    assert driver.said == [f"{bytes_missing}: nas search resume={tmp_path} brings them there"]
    Moody.hanging.set()
    driver.journal.close()
    again = Driver(store, tmp_path).begin()
    assert again.close() == 0 and numbers(read(store)[0]) == list(range(200))


def test_a_store_that_fails_is_told_once_and_caught_up_with(store: Store, tmp_path: Path) -> None:
    driver = Driver(store, tmp_path).begin()
    Moody.failing = True
    driver.write(1, 2)
    wait_until(lambda: driver.said)
    time.sleep(0.5)
    driver.write(3)
    Moody.failing = False
    wait_until(lambda: len(driver.said) == 2)
    assert driver.said == [
        f"store={store.url} can't be written: no route to host; the search goes on, its journal is here, and the store "
        "will catch up",
        f"{store.url} has caught up with the journal",
    ]
    assert driver.close() == 0 and numbers(read(store)[0]) == [1, 2, 3]


def test_a_piece_whose_arrival_was_not_told_is_no_other_drivers(store: Store, tmp_path: Path) -> None:
    driver = Driver(store, tmp_path).begin()
    Moody.failing = Moody.forgetful = True
    driver.write(1)
    wait_until(lambda: driver.said)
    driver.write(2)  # the next attempt has more to send than has arrived
    Moody.failing = Moody.forgetful = False
    assert driver.close() == 0 and driver.ended == [] and numbers(read(store)[0]) == [1, 2]


def test_at_the_end_it_waits_until_all_is_there(store: Store, tmp_path: Path) -> None:
    driver = Driver(store, tmp_path).begin()
    Moody.failing = True
    driver.write(1)
    wait_until(lambda: driver.said)
    threading.Timer(0.5, lambda: setattr(Moody, "failing", False)).start()
    assert driver.close() == 0 and numbers(read(store)[0]) == [1]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda store: store.remove("journal/00000001.jsonl"), "has a gap"),
        (lambda store: store.put("journal/00000001.jsonl", b"?"), "00000001.jsonl is damaged"),
        (lambda store: store.put("journal/00000001.jsonl", b'{"from": 7}\n'), "does not follow on the one before"),
    ],
)
def test_a_journal_with_a_piece_missing_is_not_read(
    damage: Callable[[Store], None], sentence: str, store: Store, tmp_path: Path
) -> None:
    driver = Driver(store, tmp_path).begin()
    for number in range(3):
        driver.write(number)
        wait_until(lambda: not driver.mirror.missing)
    driver.close()
    damage(store)
    with pytest.raises(StoreError, match=sentence):
        read(store)


# The corpus


def test_a_corpus_is_fetched_whole_and_mended(store: Store, corpus: Corpus, tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        bring(store, corpus, said.append)
    assert len(said) == 1 and said[0].startswith(f"bringing the corpus to {store.url}, once: ")
    record = {**vars(corpus), "folder": "/on/another/machine"}
    found = fetched(store, record, tmp_path)
    assert found and replace(found, folder=corpus.folder) == corpus
    train = found.file("train")
    assert train.read_bytes() == corpus.file("train").read_bytes()
    train.chmod(0o644)
    train.write_bytes(b"damaged")
    assert fetched(store, record, tmp_path) and train.read_bytes() == corpus.file("train").read_bytes()
    assert fetched(store, {**record, "sha256": "another"}, tmp_path) is None


def test_a_corpus_that_is_damaged_there_is_not_taken(store: Store, corpus: Corpus, tmp_path: Path) -> None:
    bring(store, corpus, print)
    store.put(f"corpora/{corpus.sha256}/train.bin", b"damaged")
    with pytest.raises(StoreError, match=r"train\.bin is damaged: remove it"):
        fetched(store, vars(corpus), tmp_path)
    assert not list(tmp_path.rglob("train.bin"))


def test_of_many_that_lack_a_file_one_fetches_it(
    store: Store, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(store, corpus, print)
    downloads = []
    download = Store.download

    def counted(self: Store, name: str, file: Path) -> bool:
        downloads.append(name)
        time.sleep(0.2)
        return download(self, name, file)

    monkeypatch.setattr(Store, "download", counted)
    place, file = f"corpora/{corpus.sha256}/train.bin", tmp_path / "train.bin"
    fetch_train = lambda: shared_corpus.fetch_file(store, place, file, corpus.files["train"])  # noqa: E731
    threads = [threading.Thread(target=fetch_train) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads == [place] and file.read_bytes() == corpus.file("train").read_bytes()


# Trials


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All train the same candidate: it is compiled once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def machines(store: Store, corpus: Corpus, compiled: Path, tmp_path: Path) -> Callable[..., TrialSpec]:
    """From the name of a machine to a trial's specification there: each has folders of its own."""
    bring(store, corpus, print)

    def spec(machine: str, trial: str = "t0000", **changes: Any) -> TrialSpec:
        made = ungated_spec(SOURCE, SETTINGS, corpus, tmp_path / machine / "trials" / trial, compiled=compiled)
        files = {name: str(tmp_path / machine / f"{name}.bin") for name in made.corpus}
        at = shared(store.url, "first", trial, corpus)
        return replace(made, corpus=files, shared=at, **changes)

    return spec


def told(messages: list[Any]) -> list[Any]:
    """What a trial measured, but for clocks and memory."""
    clocks = ("train_seconds", "tokens_per_second", "peak_bytes")
    found = [message.get("rung") or message["outcome"] for message in messages]
    return [{name: value for name, value in each.items() if name not in clocks} for each in found]


def test_a_trial_goes_on_on_a_machine_that_has_nothing_of_it(
    machines: Callable[..., TrialSpec], store: Store, box: Box, tmp_path: Path
) -> None:
    whole = list(run_shared_trial(machines("never interrupted", "t0001"), box))
    lost = run_shared_trial(machines("lost"), box)
    first = next(lost)
    wait_until(lambda: store.names("searches/first/trials/t0000") == ["00000003.tar"])
    lost.close()
    shutil.rmtree(tmp_path / "lost")
    again, *rest = run_shared_trial(machines("another"), box)
    assert first["rung"]["step"] == 3 and again["rung"] == first["rung"], "clock and all: it did not begin anew"
    assert told([again, *rest]) == told(whole)
    assert store.names("searches/first/trials/t0000") == ["00000012.tar"], "the older one is gone"
    assert not list((tmp_path / "another").rglob("*.tar"))


def test_a_trial_whose_machine_is_taken_away_goes_on_elsewhere_from_where_it_was(
    machines: Callable[..., TrialSpec], store: Store, box: Box
) -> None:
    long = {"rungs": [3, 900]}  # it runs ahead of what is heard of it
    whole = list(run_shared_trial(machines("never interrupted", "t0001", **long), box))
    taken = run_shared_trial(machines("taken away", **long), box)
    next(taken)
    assert box.give_notice()
    (last,) = taken
    assert last["outcome"]["cause"] == "preempted"
    step = int(last["outcome"]["reason"].removeprefix("at step "))
    # 3 where the notice was there before the first step after the rung
    assert 3 <= step < 900 and store.names("searches/first/trials/t0000") == [f"{step:08d}.tar"]
    assert not box.give_notice(), "nothing runs any more"
    assert told(list(run_shared_trial(machines("another", **long), box))) == told(whole)


def test_several_trials_of_a_machine_fetch_the_corpus_once(
    machines: Callable[..., TrialSpec], box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[str] = []
    download = Store.download

    def counted(self: Store, name: str, file: Path) -> bool:
        downloads.append(name.rpartition("/")[2])
        return download(self, name, file)

    monkeypatch.setattr(Store, "download", counted)
    for trial in ("t0000", "t0001"):
        *_, last = run_shared_trial(machines("one", trial, rungs=[3]), box)
        assert last["outcome"]["kind"] == "fitness", last
    assert sorted(downloads) == ["reserve.bin", "token_bytes.bin", "train.bin", "validation.bin"]


def test_a_store_that_takes_no_checkpoint_costs_no_trial(machines: Callable[..., TrialSpec], box: Box) -> None:
    Moody.failing = True
    *rungs, last = run_shared_trial(machines("one"), box)
    assert last["outcome"]["kind"] == "fitness" and [message["rung"]["step"] for message in rungs] == [3, 12]
    sentences = [message["trouble"] for message in [*rungs, last] if "trouble" in message]
    assert len(sentences) == 1 and sentences[0].startswith("a checkpoint is on its own machine alone: store=moody://")
    assert sentences[0].endswith("can't be written: no route to host")


def test_a_machine_without_the_corpus_that_gets_none_says_so(
    machines: Callable[..., TrialSpec], store: Store, corpus: Corpus, box: Box
) -> None:
    store.remove(f"corpora/{corpus.sha256}/train.bin")
    (last,) = run_shared_trial(machines("one"), box)
    assert (
        last["outcome"]["cause"] == "infrastructure"
        and "/train.bin: the driver of a search" in last["outcome"]["reason"]
    )


def test_what_a_candidate_has_put_among_its_checkpoints_is_not_followed(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the person")
    checkpoints = tmp_path / "trial" / "train" / "checkpoints"
    (checkpoints / "00000003" / "deep").mkdir(parents=True)
    (checkpoints / "00000003" / "deep" / "array").write_bytes(b"numbers")
    (checkpoints / "00000003" / "link").symlink_to(secret)
    (checkpoints / "00000003" / "folder").symlink_to(tmp_path)
    (checkpoints / "00000003.json").write_text("[]")
    os.mkfifo(checkpoints / "00000003" / "pipe")
    shelf = Shelf(store, "trial", tmp_path / "trial")
    shelf.keep(3)
    shelf.wait(20)
    assert shelf.trouble is None
    Shelf(store, "trial", tmp_path / "other").fetch()
    there = tmp_path / "other" / "train" / "checkpoints"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == [
        "00000003.json",
        "00000003/deep/array",
    ]
    assert b"of the person" not in (store.get("trial/00000003.tar") or b"")
    shutil.rmtree(there)
    there.symlink_to(tmp_path / "trial")
    with pytest.raises(StoreError, match="is a link"):
        Shelf(store, "trial", tmp_path / "other").fetch()


# Noise


def test_noise_is_measured_once_for_all_machines(store: Store, tmp_path: Path) -> None:
    here, there = tmp_path / "a" / "noise-1.jsonl", tmp_path / "b" / "noise-1.jsonl"
    fetch_noise(store, there)
    bring_noise(store, here)
    assert not there.exists()
    here.parent.mkdir()
    here.write_text('{"score": 1}')
    bring_noise(store, here)
    fetch_noise(store, there)
    assert there.read_text() == '{"score": 1}'
