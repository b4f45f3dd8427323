"""Whatever contained code does, the call ends with one result or one crash, and nothing of it goes on running."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nas.commands.doctor import examine, targets_in
from nas.sandbox import Box, Limits, SandboxError, tiers
from nas.sandbox.attempts import HELD_BY_LIMITS
from nas.sandbox.box import scrubbed_environment

MIB = 2**20
LIMITS = Limits(seconds=20, memory_bytes=600 * MIB)


@pytest.fixture(scope="module", params=tiers.TIERS)
def tier(request):
    """Each containment that this machine gives."""
    if reason := tiers.missing(request.param):
        pytest.skip(f"no {request.param} here: {reason}")
    return request.param


@pytest.fixture(scope="module")
def small_box(tier, tmp_path_factory):
    """A zygote without JAX, that can import the functions of `contained`."""
    box = Box(("contained",), tier=tier, root=tmp_path_factory.getbasetemp())
    yield box
    box.close()


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The zygote imports from where this process does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


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
        ("nest", "killed", "not one of the engine's"),
        ("count_to_the_stars", "killed", "a number of 400 digits"),
        ("blame_the_machine", "killed", "unknown cause"),
        ("crash_without_a_word", "killed", "without cause and reason"),
        ("die_of_a_nameless_signal", "killed", "signal 40"),
        ("report_twenty_thousand_times", "killed", "10,001 of them"),
        ("write_a_large_file", "raised", "File too large"),
    ],
)
def test_failure_is_one_crash_with_its_cause(small_box, tmp_path, function, cause, words):
    limits = Limits(seconds=3, memory_bytes=600 * MIB, file_bytes=50 * MIB)
    *_, last = run(small_box, function, tmp_path, limits)
    assert last["crashed"]["cause"] == cause
    assert words in last["crashed"]["reason"]
    assert run(small_box, "add", tmp_path, a=1, b=1)[-1]["result"] == 2, "the box serves the next call"


def test_walls_hold_whatever_is_tried(tier):
    report = examine(tier)
    out = {name for name, met in report.met.items() if not met}
    assert not out if tier != "limits" else not out.intersection(HELD_BY_LIMITS)


TRYING = """
import json, resource, sys
from nas.sandbox.attempts import try_all
resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, 10**9))
print(json.dumps(try_all(json.load(sys.stdin), None)))
"""


def test_every_way_out_is_one_where_nothing_is_in_the_way(tmp_path):
    """Else `held` would say nothing. Some need a kernel that allows them, or a privilege that even root may lack."""
    with targets_in(tmp_path / "person") as targets:
        done = subprocess.run(
            [sys.executable, "-c", TRYING], input=json.dumps(targets), capture_output=True, text=True, check=True
        )
    failed = {name for name, met in json.loads(done.stdout).items() if met}
    privileged = {"make a namespace", "set up an io_uring", "trace the process that forked it"}
    assert failed <= {*privileged, "raise a limit of its own"}, done.stdout


def test_a_file_is_handed_over_open(small_box, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("a", "b"):
        (elsewhere / name).write_text(f"this is {name}")
    files = {name: elsewhere / name for name in ("b", "a")}
    last = list(small_box.run("contained:read", {}, tmp_path, LIMITS, files))[-1]
    assert last["result"] == {"b": "this is b", "a": "this is a"}


def test_a_file_that_is_not_there_is_no_crash_of_the_candidate(small_box, tmp_path):
    (last,) = small_box.run("contained:read", {}, tmp_path, LIMITS, {"a": tmp_path / "nothing"})
    assert last["crashed"]["cause"] == "infrastructure"
    assert run(small_box, "add", tmp_path, a=1, b=1)[-1]["result"] == 2


def test_a_tier_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(tiers, "missing", lambda tier: None if tier == "limits" else f"no {tier} today")
    with pytest.raises(SandboxError, match="no bubblewrap today"):
        tiers.choose("bubblewrap")
    with pytest.raises(SandboxError, match="say sandbox=limits"):
        tiers.choose("auto")
    assert tiers.choose("limits") == "limits"
    assert "hostile" in tiers.warning("limits") and tiers.warning("landlock") is None


def test_without_landlock_a_namespace_shows_one_scratch_folder_alone(monkeypatch, tmp_path):
    if tiers.missing("bubblewrap"):
        pytest.skip("no bubblewrap here")
    monkeypatch.setattr("nas.sandbox.landlock.version", lambda: 0)
    box = Box(("contained",), tier="bubblewrap")
    try:
        roots = []
        for name in ("one", "two"):
            assert run(box, "add", tmp_path / name, a=1, b=1)[-1]["result"] == 2
            roots.append(box._visible)
        assert roots == [tmp_path / "one", tmp_path / "two"]
    finally:
        box.close()


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


RAYS = {  # what Ray sets for a worker that has these, and what a driver needs
    "CUDA_VISIBLE_DEVICES": "2,3",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "HIP_VISIBLE_DEVICES": "1",
    "ROCR_VISIBLE_DEVICES": "1",
    "TPU_VISIBLE_CHIPS": "0,1",
    "TPU_CHIPS_PER_HOST_BOUNDS": "1,2,1",
    "TPU_HOST_BOUNDS": "1,1,1",
}
NOT_A_CHILDS = {
    "OPENAI_API_KEY": "sk",
    "HF_TOKEN": "hf",
    "MLFLOW_TRACKING_URI": "http://user:pass@host",
    "RAY_ADDRESS": "head",
    "TPU_API_KEY": "k",
    "JAX_SECRET": "s",
    "NVIDIA_API_KEY": "nv",
    "CUDA_MPS_PIPE_DIRECTORY": "/tmp/mps",
}


def test_the_accelerators_of_a_worker_reach_the_child_and_nothing_more():
    seen = scrubbed_environment({**RAYS, **NOT_A_CHILDS}, cpus=2, gpus=2)
    assert {name: seen[name] for name in RAYS} == RAYS
    assert not seen.keys() & NOT_A_CHILDS.keys()
    ours = {"NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
    assert seen.keys() - RAYS.keys() == {*ours, "XLA_PYTHON_CLIENT_PREALLOCATE"}
    assert seen["NPROC"] == "2" and seen["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.parametrize(
    ("gpus", "said", "fraction"),
    [
        (0.25, {}, {"XLA_CLIENT_MEM_FRACTION": "0.2250"}),
        (0, {}, {}),
        (1, {}, {}),
        (4, {}, {}),
        (0.5, {"XLA_CLIENT_MEM_FRACTION": ".4"}, {"XLA_CLIENT_MEM_FRACTION": ".4"}),
        (0.5, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".4"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".4"}),  # XLA refuses both
    ],
)
def test_a_fraction_of_a_gpu_is_one_of_its_memory(gpus, said, fraction):
    seen = scrubbed_environment(said, cpus=1, gpus=gpus)
    assert {name: value for name, value in seen.items() if "FRACTION" in name} == fraction


def test_a_link_is_no_scratch_folder(small_box, tmp_path, tmp_path_factory):
    (tmp_path / "link").symlink_to(tmp_path_factory.mktemp("person"))
    (last,) = run(small_box, "add", tmp_path / "link", a=1, b=1)
    assert last["crashed"]["cause"] == "infrastructure" and "is a link" in last["crashed"]["reason"]


def test_output_is_kept_beside_the_scratch_folder(small_box, tmp_path):
    run(small_box, "abort", tmp_path / "one")
    assert "bad_alloc" in (tmp_path / "one.log").read_text()
    assert not list((tmp_path / "one").iterdir()), "where the child could put something else in its place"


def test_a_zygote_that_dies_is_replaced(tier, tmp_path):
    box = Box(("contained",), tier=tier)
    assert run(box, "add", tmp_path, a=1, b=2)[-1]["result"] == 3
    box._zygote.kill()
    box._zygote.wait()
    assert run(box, "add", tmp_path, a=1, b=2)[-1]["result"] == 3
    box.close()


@pytest.mark.parametrize("how", ["the engine is killed", "the zygote is killed"])
def test_nothing_outlives_its_parent(how, tier, tmp_path):
    box = Box(("contained",), tier=tier)
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


def test_a_worker_that_can_not_contain_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(tiers, "missing", lambda tier: f"no {tier} today")
    (last,) = run(Box(("contained",)), "add", tmp_path, a=1, b=1)
    assert last["crashed"]["cause"] == "infrastructure" and "install bubblewrap" in last["crashed"]["reason"]
