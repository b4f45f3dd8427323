"""The whole program as a person uses it: real Hydra, Ray, MLflow and training, killed and resumed."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from common import ROOT

from nas.bench import plain
from nas.bench.search import jobs_of
from nas.configuration import settings_of

NAS = [sys.executable, "-m", "nas"]
TINY = [
    "search_space.baselines=[linear_attention]",
    "model.width=16",
    "model.layers=1",
    "train.steps=12",
    "train.batch=2",
    "train.time=32",
    "train.steps_per_dispatch=3",
    "budget.memory_gib=2",
    "task.validation_windows=4",
    "search.trials=4",
    "search.noise_seeds=0",
    "search.confirm_seeds=1",
    "execution.workers=1",
    "scheduler.reduction_factor=2",
    "budget.gate_seconds=60",  # a busy machine takes ten
    "tripwire.least_leap=9",  # what is held stands on the scheduler's rungs until a resume, and not after it
]
HOSTILE = """
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        {body}
        return self.mix(x)
"""


def nas(*arguments, environment, timeout=300):
    return subprocess.run(
        [*NAS, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT
    )


def events(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def trials(folder):
    return {event["id"]: event for event in events(folder) if event["event"] == "trial"}


def candidates(folder):
    return [event["candidate"]["id"] for event in events(folder) if event["event"] == "ask"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, environment, text):
    """(folder of the results, output) of a sweep over two seeds: two whole searches, which share what they find."""
    results = tmp_path_factory.mktemp("results")
    sweep = ["-m", "seed=1,2", "name=whole-${seed}", f"results_dir={results}", f"search.shared={results}/shared"]
    run = nas("search", *TINY, *text, *sweep, environment=environment, timeout=500)
    assert run.returncode == 0, run.stdout + run.stderr
    return results, run.stdout


@pytest.fixture(scope="module")
def finished(swept):
    """(folder, output) of the one with seed 1."""
    results, output = swept
    return results / "whole-1", output


def test_a_search_ends_with_its_result(finished):
    folder, output = finished
    assert re.search(r"baseline linear_attention \w+ +\d\.\d+ bits per byte", output)
    assert "Result" in output and "fresh seed" in output and "nas ui" in output
    assert "Traceback" not in output
    finished_trials = trials(folder)
    assert sum(event["purpose"] == "search" for event in finished_trials.values()) >= 4
    assert {event["event"] for event in events(folder)} >= {"search", "ask", "rung", "trial", "end"}
    sha256 = events(folder)[0]["corpus"]["sha256"]
    assert all(event["corpus"] == sha256 for event in finished_trials.values())
    assert "class TokenMixer" in (folder / "best.py").read_text()


def test_every_trial_is_in_mlflow(finished):
    from mlflow import MlflowClient

    folder, _ = finished
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "nas"]
    runs = client.search_runs([experiment.experiment_id])
    ours = [run for run in runs if run.data.tags["nas.search"] == folder.name]
    children = {run.data.tags["nas.trial"]: run for run in ours if "nas.trial" in run.data.tags}
    assert children.keys() == trials(folder).keys()
    for trial, event in trials(folder).items():
        assert children[trial].data.tags["outcome"] == event["outcome"]["kind"]
        assert children[trial].data.tags["corpus.sha256"] == event["corpus"]
        if event["outcome"]["kind"] == "fitness":
            assert children[trial].data.metrics["bits_per_byte"] == event["outcome"]["bits_per_byte"]


def test_what_the_bench_compares_with_trains_the_same(finished, tmp_path):
    folder, _ = finished
    ended = next(iter(trials(folder).values()))
    (job,) = jobs_of(tmp_path, [ended], settings_of(events(folder)[0]["config"]))
    assert plain.run(job) == pytest.approx(ended["outcome"]["bits_per_byte"], rel=1e-3), "with other threads"


def test_another_seed_has_other_candidates(swept):
    results, _ = swept
    assert candidates(results / "whole-1") != candidates(results / "whole-2")


def test_what_one_search_has_trained_is_a_parent_in_the_next(swept):
    results, _ = swept
    first, second = results / "whole-1", results / "whole-2"
    whole = {event["candidate"]["id"]: name for name, event in trials(first).items() if _is_whole(event)}
    guests = {event["candidate"]["id"]: event["id"] for event in events(second) if event["event"] == "guest"}
    assert whole and guests.keys() == whole.keys() - {trials(second)[f"t{0:04d}"]["candidate"]["id"]}
    assert all(guests[name].endswith(f".{whole[name]}") for name in guests)
    children = [event for event in trials(second).values() if guests.keys() & set(event["candidate"]["parents"])]
    assert children
    assert not any(event["event"] == "guest" for event in events(first))
    assert f"Guests: {len(guests)} trained by other searches" in events(second)[-1]["summary"]
    assert trials(second).keys().isdisjoint(guests.values())
    assert all(name not in whole or event["outcome"].get("check") == "novelty" for name, event in _proposed(second))


def _is_whole(event):
    return event["purpose"] == "search" and event["outcome"]["kind"] == "fitness" and event["outcome"]["step"] == 12


def _proposed(folder):
    return [(e["candidate"]["id"], e) for e in trials(folder).values() if e["purpose"] == "search"]


def test_killed_at_random_moments_it_finishes_as_if_it_had_not_been(finished, tmp_path, environment, text):
    folder, _ = finished
    rng = random.Random()
    arguments = ["search", *TINY, *text, "seed=1", "name=killed", f"results_dir={tmp_path}"]
    killed = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen(
            [*NAS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
        )
        _wait_for_events(killed, 2 + len(_whole_lines(killed)), process)
        time.sleep(rng.uniform(0, 6))
        process.kill()
        process.wait()
        arguments = ["search", f"resume={killed}"]
    before = trials_so_far(killed)
    run = nas(*arguments, environment=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    finished_ids = [event["id"] for event in events(killed) if event["event"] == "trial"]
    assert len(finished_ids) == len(set(finished_ids)), "a trial was run twice"
    assert all(trials(killed)[trial] == event for trial, event in before.items()), "a finished trial was lost"
    assert candidates(killed) == candidates(folder)
    for trial, event in trials(folder).items():
        assert trials(killed)[trial]["outcome"].get("bits_per_byte") == event["outcome"].get("bits_per_byte")


def test_hostile_candidates_are_outcomes_and_the_search_goes_on(tmp_path, environment, text):
    ideas = tmp_path / "ideas"
    ideas.mkdir()
    bodies = {
        "loops": "while True:\n            pass",
        "allocates": "kept = []\n        while True:\n            kept.append(bytearray(100_000_000))",
        "raises": "raise RuntimeError('no')",
    }
    for name, body in bodies.items():
        (ideas / f"{name}.py").write_text(HOSTILE.format(body=body))
    (ideas / "not_python.py").write_text("class TokenMixer(:")
    run = nas(
        *["search", *TINY, *text, f"results_dir={tmp_path}", "name=hostile", "search.trials=10", "execution.workers=2"],
        *["proposer=folder", f"proposer.path={ideas}", "tracking=none"],
        *["budget.memory_gib=1", "budget.gate_seconds=30"],  # a slow machine needs seconds to fill a GiB
        environment=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = {
        event["candidate"]["name"]: event["outcome"]
        for event in trials(tmp_path / "hostile").values()
        if event["purpose"] == "search"
    }
    assert {name: outcome["kind"] for name, outcome in outcomes.items()} == dict.fromkeys(
        [*bodies, "not_python"], "rejected"
    )
    assert "did not finish" in outcomes["loops"]["reason"]
    assert "more than" in outcomes["allocates"]["reason"] or "memory" in outcomes["allocates"]["reason"]
    assert "RuntimeError" in outcomes["raises"]["reason"]
    assert outcomes["not_python"]["check"] == "static"


def test_an_interrupt_stops_cleanly_and_says_how_to_resume(tmp_path, environment, text):
    arguments = ["search", *TINY, *text, f"results_dir={tmp_path}", "name=stopped", "tracking=none", "seed=5"]
    process = subprocess.Popen(
        [*NAS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )
    _wait_for_events(tmp_path / "stopped", 3, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"resume={tmp_path / 'stopped'}" in output
    assert "Traceback" not in output
    assert events(tmp_path / "stopped")[-1]["reason"] == "interrupted"
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_at_a_cap_the_search_says_which(tmp_path, environment, text):
    arguments = [*TINY, *text, f"results_dir={tmp_path}", "name=capped", "tracking=none", "budget.device_hours=0.0001"]
    run = nas("search", *arguments, environment=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "budget.device_hours=0.0001" in run.stdout
    assert events(tmp_path / "capped")[-1]["reason"] == "budget.device_hours=0.0001"


def test_train_prints_what_it_measured(tmp_path, environment, text):
    run = nas("train", "deltanet", *TINY, *text, f"results_dir={tmp_path}", environment=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["step"] == 12


def trials_so_far(folder):
    return {event["id"]: event for event in map(json.loads, _whole_lines(folder)) if event["event"] == "trial"}


def _whole_lines(folder: Path) -> list[bytes]:
    path = folder / "journal.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _wait_for_events(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(_whole_lines(folder)) < count and process.poll() is None:
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
