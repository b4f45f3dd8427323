"""Whatever contained code does, the call ends with one result or one crash, and nothing of it goes on running."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from nas.sandbox import Box, Limits
from nas.sandbox.box import scrubbed_environment

MIB = 2**20
LIMITS = Limits(seconds=20, memory_bytes=600 * MIB)


@pytest.fixture(scope="module")
def small_box():
    """A zygote without JAX, that can import the functions of `contained`."""
    sys.path.insert(0, str(Path(__file__).parent))
    box = Box(("contained",))
    yield box
    box.close()
    sys.path.pop(0)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Makes `contained` importable in the zygote, which is started by the first test."""
    monkeypatch.setattr("nas.sandbox.box._KEPT_VARIABLES", ("PATH", "PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def run(box, function, scratch, limits=LIMITS, **arguments):
    return list(box.run(f"contained:{function}", arguments, scratch, limits))


def test_messages_come_in_order_and_the_result_last(small_box, tmp_path):
    *messages, last = run(small_box, "add", tmp_path, a=2, b=3)
    assert messages == [{"step": 1}, {"step": 2}]
    assert last["result"] == 5
    assert last["peak_bytes"] > MIB


@pytest.mark.parametrize(
    ("function", "cause", "words"),
    [
        ("raise_error", "raised", "no such luck"),
        ("leave", "raised", "SystemExit"),
        ("loop", "timeout", "did not finish"),
        ("sleep_and_ignore_signals", "timeout", "did not finish"),
        ("allocate", "memory", "more than"),
        ("abort", "memory", "ran out"),
        ("die", "killed", "SIGKILL"),
        ("garble", "killed", "not one of the engine's"),
        ("flood", "killed", "not one of the engine's"),
        ("write_a_large_file", "raised", "File too large"),
    ],
)
def test_failure_is_one_crash_with_its_cause(small_box, tmp_path, function, cause, words):
    limits = Limits(seconds=3, memory_bytes=600 * MIB, file_bytes=50 * MIB)
    (last,) = run(small_box, function, tmp_path, limits)
    assert last["crashed"]["cause"] == cause
    assert words in last["crashed"]["reason"]
    assert run(small_box, "add", tmp_path, a=1, b=1)[-1]["result"] == 2, "the box serves the next call"


@pytest.mark.parametrize("function", ["leave_a_daemon", "fork_and_hang"])
def test_no_descendant_survives(small_box, tmp_path, function):
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    run(small_box, function, tmp_path, Limits(seconds=2))
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before


def test_a_call_given_up_is_killed(small_box, tmp_path):
    messages = small_box.run("contained:count", {"to": 10**9}, tmp_path, LIMITS)
    assert next(messages)["number"] == 0
    before = psutil.Process().children(recursive=True)
    messages.close()
    assert len(psutil.Process().children(recursive=True)) == len(before) - 1
    assert run(small_box, "add", tmp_path, a=1, b=1)[-1]["result"] == 2


def test_nothing_runs_while_nobody_listens(small_box, tmp_path):
    messages = small_box.run("contained:count", {"to": 10**9}, tmp_path, LIMITS)
    next(messages)
    next(messages)
    used = _cpu_seconds(small_box)
    time.sleep(0.5)
    assert _cpu_seconds(small_box) - used < 0.1
    messages.close()


def test_no_secret_reaches_the_child(small_box, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen = run(small_box, "environment", tmp_path)[-1]["result"]
    assert "sk-secret" not in str(seen)
    assert "sk-secret" not in str(scrubbed_environment(os.environ, cpus=1))
    assert seen["HOME"] == str(tmp_path)


def test_output_is_kept_in_the_scratch_folder(small_box, tmp_path):
    run(small_box, "abort", tmp_path)
    assert "bad_alloc" in (tmp_path / "output.log").read_text()


def test_a_zygote_that_dies_is_replaced(tmp_path):
    box = Box(("contained",))
    assert run(box, "add", tmp_path, a=1, b=2)[-1]["result"] == 3
    box._zygote.kill()
    box._zygote.wait()
    assert run(box, "add", tmp_path, a=1, b=2)[-1]["result"] == 3
    box.close()


@pytest.mark.parametrize("how", ["the engine is killed", "the zygote is killed"])
def test_nothing_outlives_its_parent(how, tmp_path):
    box = Box(("contained",))
    messages = box.run("contained:count", {"to": 10**9}, tmp_path, LIMITS)
    next(messages)
    zygote = psutil.Process(box._zygote.pid)
    family = [zygote, *zygote.children(recursive=True)]
    if how == "the engine is killed":
        box._control.close()  # as the kernel does
    else:
        zygote.kill()
    _, alive = psutil.wait_procs(family, timeout=5)
    box._zygote.wait(5)
    assert not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    messages.close()


def _cpu_seconds(box):
    total = 0.0
    for process in psutil.Process(box._zygote.pid).children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system
    return total
