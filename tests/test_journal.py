"""The journal: what was written is there, whatever ends the process or the disk."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nas import journal
from nas.errors import UserError
from nas.journal import Journal, JournalError

EVENTS = [
    {"event": "ask", "text": "a\nb \u2028 é \U0001f600 \ud800 \x00"},
    {"event": "rung", "value": 1 / 3, "none": None},
    {"event": "trial", "nested": {"list": [1, 2.5, True, "x" * 10_000]}},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "search" / "journal.jsonl"
    write(path)
    return path


def write(path: Path, events: list[dict] = EVENTS) -> list[dict]:
    log = Journal(path)
    written = [log.append(event) for event in events]
    log.close()
    return written


def without_time(events: list[dict]) -> list[dict]:
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    written = write(tmp_path / "new" / "folder" / "journal.jsonl")
    assert journal.read(tmp_path / "new" / "folder" / "journal.jsonl") == written
    assert without_time(written) == EVENTS and all(event["time"] > 1e9 for event in written)


def test_a_reopened_journal_goes_on(path: Path) -> None:
    write(path, [{"event": "end"}])
    assert without_time(journal.read(path)) == [*EVENTS, {"event": "end"}]


def test_an_event_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    log = Journal(tmp_path / "journal.jsonl")
    for count, event in enumerate(EVENTS, 1):
        log.append(event)
        assert len(journal.read(tmp_path / "journal.jsonl")) == count
    log.close()


def test_a_line_torn_anywhere_is_left_out_and_cut_off(path: Path) -> None:
    content = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(content[:-1]) if byte == ord("\n"))]
    for start, whole in zip(starts, range(len(starts)), strict=True):
        for cut in {start, start + 1, start + 17, content.find(b"\n", start)}:
            path.write_bytes(content[:cut])
            assert without_time(journal.read(path)) == EVENTS[:whole]
            assert path.read_bytes() == content[:cut], "reading changes nothing"
            Journal(path).close()
            assert path.read_bytes() == content[:start]


def test_after_a_torn_line_the_next_event_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    write(path, [{"event": "end"}])
    assert without_time(journal.read(path)) == [*EVENTS[:-1], {"event": "end"}]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"event": "trial"', b"\xff\xfe", b"\0\0\0", b"17", b"null", b"[]", b"{}", b"<<<< HEAD"]
)
@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_damaged_line_is_named(path: Path, line: int, damage: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[: line - 1], damage, *lines[line:]]))
    with pytest.raises(JournalError, match=rf"damaged at line {line}\b"):
        journal.read(path)


def test_no_journal_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"no search to read at .*nothing/journal.jsonl: No such file"):
        journal.read(tmp_path / "nothing" / "journal.jsonl")
    with pytest.raises(JournalError, match="Is a directory"):
        journal.read(tmp_path)
    assert issubclass(JournalError, UserError)


def test_a_second_writer_is_refused_until_the_first_is_gone(path: Path) -> None:
    first = Journal(path)
    with pytest.raises(
        JournalError, match=r"another process is running the search in .*search: wait for it or stop it"
    ):
        Journal(path)
    first.append({"event": "end"})
    assert len(journal.read(path)) == len(EVENTS) + 1, "the second one left the journal alone"
    first.close()
    Journal(path).close()


def test_the_lock_dies_with_a_killed_process(path: Path) -> None:
    script = f"""
from pathlib import Path
from nas.journal import Journal
log = Journal(Path({str(path)!r}))
print(log.append({{"event": "ask"}})["event"], flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ask\n"
    with pytest.raises(JournalError, match="another process"):
        Journal(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    Journal(path).close()
    assert without_time(journal.read(path)) == [*EVENTS, {"event": "ask"}]


def test_a_full_disk_is_one_sentence_and_loses_nothing(path: Path) -> None:
    log = Journal(path)
    before = path.read_bytes()
    full = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    real = os.dup(log._file.fileno())
    os.dup2(full, log._file.fileno())
    for _ in range(2):
        with pytest.raises(JournalError, match="can't be written: No space left on device"):
            log.append({"event": "trial"})
    assert path.read_bytes() == before
    os.dup2(real, log._file.fileno())  # somebody made room
    log.append({"event": "end"})
    log.close()
    assert without_time(journal.read(path)) == [*EVENTS, {"event": "end"}]
    os.close(full)
    os.close(real)


def test_a_journal_on_a_full_disk_can_be_closed(path: Path) -> None:
    log = Journal(path)
    full = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    os.dup2(full, log._file.fileno())
    os.close(full)
    with pytest.raises(JournalError):
        log.append({"event": "trial"})
    log.close()


@pytest.mark.parametrize("room", [0, 1, 20, 5_000])
def test_a_disk_that_fills_up_within_a_line_leaves_whole_lines(path: Path, room: int) -> None:
    script = f"""
import resource
from pathlib import Path
from nas.journal import Journal, JournalError
path = Path({str(path)!r})
log = Journal(path)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + {room}, hard))
try:
    log.append({{"event": "trial", "text": "x" * 10_000}})
except JournalError as error:
    print(error)
print(path.read_bytes()[-1:] == b"\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append({{"event": "end"}})
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout == f"the journal {path} can't be written: File too large\nTrue\n", process.stderr
    assert without_time(journal.read(path)) == [*EVENTS, {"event": "end"}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_is_refused_before_it_is_written(path: Path, value: float) -> None:
    before = path.read_bytes()
    log = Journal(path)
    with pytest.raises(ValueError):
        log.append({"event": "rung", "bits_per_byte": value})
    log.close()
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match="can't be opened: Permission denied"):
        Journal(tmp_path / "search" / "journal.jsonl")


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "search").write_text("")
    with pytest.raises(JournalError, match=r"search/journal.jsonl can't be opened"):
        Journal(tmp_path / "search" / "journal.jsonl")


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    log = Journal(tmp_path / "journal.jsonl")
    texts = ["a" * 3000, "b" * 10, "c" * 70_000, "d"]
    threads = [
        threading.Thread(target=lambda text=text: [log.append({"event": "x", "text": text}) for _ in range(20)])
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    read = [event["text"] for event in journal.read(tmp_path / "journal.jsonl")]
    assert sorted(read) == sorted(20 * texts)


def test_a_kill_at_any_moment_leaves_a_readable_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    script = f"""
import itertools
from pathlib import Path
from nas.journal import Journal
log = Journal(Path({str(path)!r}))
for number in itertools.count():
    log.append({{"event": "x", "number": number, "text": "y" * 500}})
    print(flush=True)
"""
    count = 0
    for seconds in (0.0, 0.005, 0.02):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        process.communicate()
        numbers = [event["number"] for event in journal.read(path)][count:]
        assert numbers == list(range(len(numbers))) and numbers
        count += len(numbers)


@pytest.mark.parametrize("secret", ["sk-0123456789abcdef", 'a"quote\\and/slash'])
def test_a_secret_stands_nowhere_in_it(tmp_path: Path, secret: str) -> None:
    kept = Journal(tmp_path / "journal.jsonl", secret)
    written = kept.append({"event": "ask", "candidate": {"source": f"x = {secret!s}", "list": [secret]}})
    kept.close()
    assert written["candidate"] == {"source": "x = [key]", "list": ["[key]"]}
    assert journal.read(kept.path) == [written]
    assert secret not in kept.path.read_text() and json.dumps(secret)[1:-1] not in kept.path.read_text()
