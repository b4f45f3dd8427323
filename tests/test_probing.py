"""Training on probe tasks: what one run finds, what the engine takes of it, and the table of `nas probe`."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import ROOT, SPACE
from test_trial import SETTINGS as SHORT

from nas.cli import main
from nas.commands.probe import Architecture, Probing, best_of, chosen_tasks, markdown, summary
from nas.errors import UserError
from nas.loading import load_mixer
from nas.probe_trial import ProbeSpec, make_probe_spec, run_probe, run_probed_trial, score_of, trial_probes
from nas.probing import SOLVED, held_out, probe, training_batches
from nas.sandbox import Box
from nas.search import rung_steps
from nas.settings import BudgetSettings, ProbeSettings, Settings
from nas.tasks.corpus import Corpus
from nas.tasks.memorization import Memorization
from nas.tasks.probe import Setup
from nas.tasks.probes import PROBES
from nas.trial import TrialSpec, gate_arguments, make_spec
from nas.types import Candidate, canonical_source
from search_spaces.linear_attention.grammar import with_parts
from search_spaces.linear_attention.parts import known_parts

LINEAR = SPACE.baselines()["linear_attention"].source
EXAMPLES = ROOT / "search_spaces" / "linear_attention" / "examples"
FACTS = Setup(Memorization(8, 8), width=16, heads=2, steps=400, batch=16, learning_rates=(2e-2,), look_every=20)
SETTINGS = Settings(
    probe=ProbeSettings(size="tiny", seeds=2, learning_rates=(1e-3, 1e-2), steps=3, timeout_seconds=30),
    budget=BudgetSettings(memory_gib=2),
)
# Infinite once its one parameter has moved far enough, which at a learning rate of 10 it has after one step.
BRITTLE = """
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return x * jnp.where(jnp.abs(self.scale[...] - 1.0) > 0.5, jnp.inf, self.scale[...])
"""


# In the contained process


@pytest.fixture(scope="module")
def solved() -> list[dict[str, Any]]:
    return list(probe(LINEAR, FACTS, [(0, 2e-2), (0, 1e-6), (0, 2e-2), (1, 2e-2)]))


def test_what_can_be_learned_is_learned_and_then_it_ends(solved: list[dict[str, Any]]) -> None:
    assert solved[0]["steps"] < FACTS.steps and len(solved[0]["accuracy"]) == 1
    assert min(solved[0]["accuracy"]) >= SOLVED - 0.03, "on other examples than those that ended it"
    assert solved[1]["steps"] == FACTS.steps and max(solved[1]["accuracy"]) < 0.7, "at no learning rate to speak of"
    assert solved[1]["loss"] > 5 * solved[0]["loss"]


def test_a_run_is_a_function_of_seed_and_learning_rate(solved: list[dict[str, Any]]) -> None:
    first, _, again, other = ({**run, "seconds": 0} for run in solved)
    assert first == again, "whatever went through the same program before it"
    assert first["loss"] != other["loss"]


def test_no_example_is_both_trained_on_and_scored() -> None:
    setup = PROBES["in_context_recall"].tiny
    time = setup.probe.time
    trained = {row.tobytes() for seed in (0, 1) for row in training_batches(setup, seed, 0, 2).tokens.reshape(-1, time)}
    others = [batch.tokens for stream in (1, 2) for batch in held_out(setup.probe, stream, time, setup.batch, 128)]
    rows = {row.tobytes() for row in np.concatenate(others)}
    assert len(trained) == 4 * setup.batch and len(rows) == 256 and not trained & rows


def test_batches_are_those_of_their_steps() -> None:
    setup = PROBES["parity"].tiny
    together, second = training_batches(setup, 3, 0, 2), training_batches(setup, 3, 1, 1)
    assert together.tokens.shape == (2, setup.batch, setup.probe.time)
    np.testing.assert_array_equal(together.tokens[1], second.tokens[0])


# Through the box


def spec_of(source: str, task: str, folder: Path, **changes: Any) -> ProbeSpec:
    return replace(make_probe_spec(source, task, SETTINGS, folder), **changes)


def test_each_seed_with_each_learning_rate(tmp_path: Path) -> None:
    spec = spec_of(LINEAR, "mqar", tmp_path)
    assert list(spec.runs) == [(0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2)] and spec.seconds == 120
    default = replace(SETTINGS, probe=ProbeSettings(size="published"))
    published = make_probe_spec(LINEAR, "mqar", default, tmp_path)
    assert len(published.runs) == 3 * 4 and published.steps is None


def test_a_crash_of_one_run_is_a_value_and_the_others_go_on(box: Box, tmp_path: Path) -> None:
    spec = spec_of(BRITTLE, "selective_copying", tmp_path, runs=[(0, 1e-3), (0, 10.0), (1, 1e-3)])
    first, crashed, last = run_probe(spec, box)
    assert "accuracy" not in crashed and crashed["crashed"]["cause"] == "diverged"
    assert crashed["crashed"]["reason"].startswith("the training loss was not finite at step ")
    for run in (first, last):
        assert list(run["accuracy"]) == ["32", "64"] and run["steps"] == 3
        assert all(0 <= accuracy < 0.3 for accuracy in run["accuracy"].values()), "chance is 1 in 8"


def test_what_takes_its_process_with_it_is_a_crash_of_every_run(box: Box, tmp_path: Path) -> None:
    (only,) = run_probe(spec_of("import os\nos.abort()", "parity", tmp_path, runs=[(0, 1e-3)]), box)
    assert only["crashed"]["cause"] == "killed" and (only["seed"], only["learning_rate"]) == (0, 1e-3)


HONEST = {"seed": 0, "learning_rate": 1e-3, "accuracy": [0.5], "loss": 0.1, "steps": 3, "seconds": 1.0}
SECOND = {**HONEST, "learning_rate": 1e-2}
LIES: dict[str, Any] = {
    "more than all": {**SECOND, "accuracy": [1.5]},
    "no number": {**SECOND, "accuracy": [None]},  # as what is not finite arrives
    "too many lengths": {**SECOND, "accuracy": [0.5, 0.5]},
    "true": {**SECOND, "accuracy": [True]},
    "another seed": {**SECOND, "seed": 1},
    "the first once more": HONEST,
    "the machine's fault": {**SECOND, "crashed": {"cause": "infrastructure", "reason": "it was not me"}},
    "nothing of it": {"seed": 0, "learning_rate": 1e-2},
    "words": "nothing",
}


class Told(Box):
    """A box whose child tells what the test says: a candidate that got out of its code can."""

    def __init__(self, *runs: Any):
        self.told = [*({"run": run} for run in runs), {"result": {"probed": True}}]

    def run(self, *arguments: Any, **more: Any) -> Iterator[dict[str, Any]]:
        yield from self.told


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_report_is_no_score(lie: str, tmp_path: Path) -> None:
    honest, believed, *_ = run_probe(spec_of(LINEAR, "memorization", tmp_path), Told(HONEST, SECOND))
    assert honest["accuracy"] == believed["accuracy"] == {"32": 0.5}
    first, second, *rest = run_probe(spec_of(LINEAR, "memorization", tmp_path), Told(HONEST, LIES[lie]))
    assert first == honest and (second["seed"], second["learning_rate"]) == (0, 1e-2)
    assert {run["crashed"]["cause"] for run in (second, *rest)} == {"killed"}


def test_no_more_runs_than_were_asked_for(tmp_path: Path) -> None:
    spec = spec_of(LINEAR, "memorization", tmp_path, runs=[(0, 1e-3)])
    assert len(run_probe(spec, Told(HONEST, HONEST))) == 1


# The table


def run(seed: int, rate: float, *accuracy: float) -> dict[str, Any]:
    found = dict(zip(("32", "64"), accuracy, strict=False))
    return {"seed": seed, "learning_rate": rate, "accuracy": found, "loss": 0.1, "steps": 10, "seconds": 1.0}


def failed(seed: int, rate: float) -> dict[str, Any]:
    return {"seed": seed, "learning_rate": rate, "crashed": {"cause": "diverged", "reason": "not finite"}}


def test_the_best_learning_rate_is_that_of_all_seeds_together() -> None:
    best = best_of(
        {"runs": [run(0, 1e-3, 0.9, 0.5), run(0, 1e-2, 1.0, 0.9), run(1, 1e-3, 0.8, 0.5), run(1, 1e-2, 0, 0)]}
    )
    assert best["learning_rate"] == 1e-3 and best["failure"] is None
    assert best["accuracy"]["32"]["by_seed"] == [0.9, 0.8] and best["accuracy"]["32"]["mean"] == pytest.approx(0.85)
    assert best["accuracy"]["32"]["low"] < 0.8 and best["accuracy"]["32"]["high"] == 1.0, "cut where no accuracy is"


def test_a_learning_rate_at_which_a_seed_crashed_has_no_score() -> None:
    runs = [run(0, 1e-3, 0.1), run(0, 1e-2, 1.0), run(1, 1e-3, 0.1), failed(1, 1e-2)]
    assert best_of({"runs": runs})["learning_rate"] == 1e-3
    gone = best_of({"runs": [failed(0, 1e-3), run(1, 1e-3, 1.0)]})
    assert gone["failure"] == "crashed, diverged: not finite" and "accuracy" not in gone


def test_one_seed_has_no_interval() -> None:
    found = best_of({"runs": [run(0, 1e-3, 0.5)]})["accuracy"]["32"]
    assert (found["mean"], found["low"], found["high"]) == (0.5, None, None)


def test_the_report_shows_failures_as_words() -> None:
    settings = replace(SETTINGS, probe=replace(SETTINGS.probe, tasks=("memorization",)))
    good, bad = (Architecture(Candidate(source, "named", name=name), True) for name, source in (("a", "1"), ("b", "2")))
    outcome = {"kind": "rejected", "check": "cost", "reason": "quadratic"}
    runs = [run(seed, rate, 0.25) for seed in (0, 1) for rate in (1e-3, 1e-2)]
    found = {
        Probing(good, "memorization").key: {"runs": runs, "seconds": 60.0},
        Probing(bad, "memorization").key: {"outcome": outcome},
    }
    report = summary(settings, [good, bad], ["memorization"], found)
    opening = {"command": "nas probe a b", "machine": "one core", "versions": {}, "minutes": 1.0}
    text = markdown(json.loads(json.dumps({**opening, **report}, allow_nan=False)))
    assert "| a | 0.250 [0.250, 0.250] | 0.001 | 10 |" in text and "| b | rejected by cost: quadratic |" in text
    assert (
        "| chance | 0.016 |" in text and "| memorization | a | 32: 0.250, 0.250 | 0.001: 0.250; 0.01: 0.250 |" in text
    )


# As a part of a trial


@pytest.fixture
def trial_spec(corpus: Corpus, tmp_path: Path) -> TrialSpec:
    """A trial of a few steps, with two probe tasks of a few steps after it."""
    probe = ProbeSettings(size="tiny", tasks=("parity", "memorization"), seeds=1, learning_rates=(1e-3, 1e-2), steps=3)
    spec = make_spec(
        LINEAR,
        SHORT,
        corpus,
        gate=gate_arguments(SHORT, sorted(SPACE.allowed_imports), known={}, reference_flops=None),
        rungs=rung_steps(SHORT),
        floored=True,
        contends_below=None,
        seed=0,
        folder=tmp_path,
    )
    return replace(spec, floor=None, probes=trial_probes(LINEAR, replace(SHORT, probe=probe), tmp_path))


def test_probes_describe_what_was_trained_to_the_end(trial_spec: TrialSpec, box: Box) -> None:
    *_, last = run_probed_trial(trial_spec, box)
    assert last["outcome"]["probes"].keys() == {"parity", "memorization"}
    assert all(0 <= score <= 1 for score in last["outcome"]["probes"].values())
    assert last["cost"]["gate_seconds"] + last["cost"]["train_seconds"] <= last["cost"]["total_seconds"]
    *_, without = run_probed_trial(replace(trial_spec, probes=()), box)
    assert without["outcome"]["probes"] == {}


def test_a_candidate_that_fails_its_first_rung_is_not_trained(trial_spec: TrialSpec, box: Box) -> None:
    certificate, last = run_probed_trial(replace(trial_spec, probes_first=True, least=1.0), box)
    assert "certificate" in certificate
    assert (last["outcome"]["kind"], last["outcome"]["cause"]) == ("crashed", "floor")
    assert "of the answers are right, under 1" in last["outcome"]["reason"]
    assert 0 < last["cost"]["gate_seconds"] < last["cost"]["total_seconds"]
    *_, last = run_probed_trial(replace(trial_spec, probes_first=True, least=0.0), box)
    assert last["outcome"]["kind"] == "fitness" and len(last["outcome"]["probes"]) == 2


def test_a_probes_score_is_that_of_its_best_learning_rate() -> None:
    runs = [run(0, 1e-3, 0.5, 0.7), run(0, 1e-2, 0.9, 1.0), run(1, 1e-3, 0.5, 0.5), failed(1, 1e-2)]
    assert score_of(runs) == pytest.approx(0.55)
    assert score_of([failed(0, 1e-2)]) == 0.0


def test_tasks_are_chosen_by_name() -> None:
    assert chosen_tasks(SETTINGS) == list(PROBES)
    some = replace(SETTINGS, probe=replace(SETTINGS.probe, tasks=("a5", "mqar")))
    assert chosen_tasks(some) == ["mqar", "a5"]
    with pytest.raises(UserError, match=r"^probe.tasks: no nope; there are in_context_recall, "):
        chosen_tasks(replace(SETTINGS, probe=replace(SETTINGS.probe, tasks=("nope",))))
    with pytest.raises(UserError, match="say probe=tiny or probe=published"):
        chosen_tasks(Settings())


def test_a_table_from_real_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A candidate file, gate and all; given again, nothing is done again."""
    names = [str(EXAMPLES / "deltanet_additive.py")]
    overrides = ["probe.tasks=[memorization]", "probe.steps=2", "probe.seeds=1", "execution.workers=1"]
    command = ["probe", *names, *overrides, f"results_dir={tmp_path}"]
    assert main(command) == 0
    report = json.loads((tmp_path / "tasks.json").read_text())
    results = report["results"]["memorization"]
    assert results.keys() == {"deltanet_additive"} and results["deltanet_additive"]["failure"] is None
    assert 0 < results["deltanet_additive"]["accuracy"]["32"]["mean"] < 0.5, "after two steps"
    assert report["probe"]["size"] == "tiny" and "deltanet_additive |" in capfd.readouterr().out
    assert main(command) == 0 and "going on with the 1 results" in capfd.readouterr().out
    assert json.loads((tmp_path / "tasks.json").read_text())["results"] == report["results"]


# Examples of candidates


@pytest.mark.parametrize(
    ("name", "slot", "part"),
    [("deltanet_signed", "strength", "signed"), ("deltanet_additive", "write_rule", "additive")],
)
def test_an_example_differs_from_its_baseline_in_one_part(name: str, slot: str, part: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    grown = with_parts(SPACE.baselines()["deltanet"].source, [known_parts(slot)[part]])
    assert canonical_source(source) == canonical_source(grown)
    assert load_mixer(source).__doc__
