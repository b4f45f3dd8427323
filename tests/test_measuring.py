"""Contained work on several cores: kept as it comes, taken up again, ended by an interrupt."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from common import ROOT, SPACE

from nas.commands.measuring import chosen_baselines, kept_in, markdown_table, measure
from nas.journal import Event, read
from nas.sandbox import Box, Limits
from nas.settings import SearchSpaceSettings, Settings
from nas.terminal import make_console

INTERRUPTED = """
import signal
import sys
from pathlib import Path
from nas.commands.measuring import measure
from nas.sandbox import Box, Limits
from nas.terminal import make_console

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored

def work(job, box, scratch):
    if job == 0:
        return {"found": 0}
    messages = box.run("contained:send_and_hang", {}, scratch, Limits(60))
    print("sent", next(messages)["step"], file=sys.stderr, flush=True)
    return list(messages)[-1]

boxes = [Box(("contained",)) for _ in range(2)]
measure(Path(sys.argv[1]), ((str(job), job) for job in range(6)), 6, work, boxes, make_console())
"""


def run(path: Path, jobs: list[int], work=None, boxes: int = 2) -> dict[str, Event]:
    work = work or (lambda job, box, scratch: {"found": 2 * job})
    pairs = ((str(job), job) for job in jobs)
    return measure(path, pairs, len(jobs), work, [Box() for _ in range(boxes)], make_console())


def test_progress_counts_these_jobs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.jsonl"
    for jobs in ({"1": 1, "2": 2}, {"2": 2, "3": 3, "4": 4}):
        measure(kept, jobs.items(), len(jobs), lambda job, box, scratch: {"found": job}, [Box()], make_console())
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if " of " in line] == [
        "1 of 2",
        "2 of 2",
    ] * 2


def test_every_job_is_done_once_and_kept(tmp_path: Path) -> None:
    kept, asked = tmp_path / "folder" / "kept.jsonl", []

    def work(job: int, box: Box, scratch: Path) -> Event:
        assert scratch.is_dir()
        asked.append(job)
        return {"found": 2 * job}

    run(kept, [1, 2], work)
    found = run(kept, [1, 2, 3, 4], work)
    assert {key: event["found"] for key, event in found.items()} == {"1": 2, "2": 4, "3": 6, "4": 8}
    assert sorted(asked) == [1, 2, 3, 4]
    assert {event["job"]: event for event in read(kept)} == found


def test_as_many_at_a_time_as_there_are_boxes(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=10)  # breaks if one waits alone
    used: set[int] = set()

    def work(job: int, box: Box, scratch: Path) -> Event:
        together.wait()
        used.add(id(box))
        return {}

    assert not any("outcome" in event for event in run(tmp_path / "kept.jsonl", [1, 2, 3, 4], work).values())
    assert len(used) == 2


def test_a_failure_of_the_engine_is_a_row_with_its_text(tmp_path: Path) -> None:
    def work(job: int, box: Box, scratch: Path) -> Event:
        return {"found": 1 // job}

    found = run(tmp_path / "kept.jsonl", [0, 1], work)
    assert found["1"]["found"] == 1
    assert found["0"]["outcome"]["kind"] == "crashed" and found["0"]["outcome"]["cause"] == "engine"
    assert "ZeroDivisionError" in found["0"]["outcome"]["reason"]


def test_what_can_not_be_kept_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run(tmp_path / "kept.jsonl", [1, 2], lambda job, box, scratch: {"found": float("nan")})


def test_an_interrupt_keeps_what_was_found_and_leaves_nothing_running(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(kept)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
    )
    assert process.stderr is not None
    began = [process.stderr.readline() for _ in range(2)]
    below = psutil.Process(process.pid).children(recursive=True)
    assert began == ["sent 1\n"] * 2 and len(below) >= 4, "two zygotes, each with a child"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert [event["found"] for event in read(kept)] == [0], "what was killed is no result"
    assert psutil.wait_procs(below, timeout=10)[1] == []


def test_what_starts_late_is_ended_too(tmp_path: Path) -> None:
    """A job whose contained call begins after the end of the run has closed every box."""

    def work(job: int, box: Box, scratch: Path) -> Event:
        if job == 1:
            return {"found": float("nan")}  # can't be kept, which ends the run
        time.sleep(1)
        return list(box.run("contained:send_and_hang", {}, scratch, Limits(60)))[-1]

    boxes, began = [Box(("contained",)) for _ in range(2)], time.monotonic()
    with pytest.raises(ValueError, match="JSON"):
        measure(tmp_path / "kept.jsonl", [("1", 1), ("2", 2)], 2, work, boxes, make_console())
    assert 1 <= time.monotonic() - began < 30, "not the minute that the call would have had"


def test_a_file_for_whatever_the_results_depend_on() -> None:
    settings = Settings()
    name = kept_in(settings, "walk", [1]).name
    assert name == kept_in(settings, "walk", [1]).name != kept_in(settings, "walk", [2]).name
    assert kept_in(settings, "walk", [1]).parent == Path("results/.cache")


def test_a_cell_does_not_break_its_table() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]) == ["| a | b |", "| --- | --- |", "| x\\|y | 1 2 |", ""]


def test_all_baselines_and_the_outside_references_where_none_is_named() -> None:
    """A search that names none trains a few of them."""
    assert [c.name for c in chosen_baselines(Settings(), SPACE)] == [
        SPACE.reference,
        *(name for name in (*SPACE.baselines(), *SPACE.outside_references()) if name != SPACE.reference),
    ]
    named = Settings(search_space=SearchSpaceSettings(baselines=("retnet", "gla")))
    assert [c.name for c in chosen_baselines(named, SPACE)] == ["retnet", "gla"]
