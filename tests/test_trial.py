"""A trial is one outcome, whatever the candidate does: in the gate, and past it."""

import pytest
from common import SPACE

from nas.search import rung_steps
from nas.settings import BudgetSettings, ModelSettings, Settings, TaskSettings, TrainSettings
from nas.trial import gate_arguments, make_spec, run_trial

SETTINGS = Settings(
    model=ModelSettings(width=16, heads=2, layers=1),
    train=TrainSettings(steps=12, batch=2, time=32, steps_per_dispatch=3, timeout_seconds=60),
    task=TaskSettings(validation_windows=4),
    budget=BudgetSettings(gate_seconds=30, memory_gib=2),
)
GOOD = SPACE.baselines()["linear_attention"].source
HOSTILE = {
    "loops": "while True:\n            pass",
    "allocates": "kept = []\n        while True:\n            kept.append(bytearray(100_000_000))",
    "raises": "raise RuntimeError('no')",
    "leaves": "raise SystemExit(0)",
}
HOSTILE_SOURCE = """
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        {body}
        return self.mix(x)
"""


def run(source, box, corpus, folder, gated=True, seconds=30.0):
    gate = gate_arguments(SETTINGS, sorted(SPACE.allowed_imports), known={}, reference_flops=None)
    settings = Settings(
        model=SETTINGS.model,
        train=TrainSettings(**{**vars(SETTINGS.train), "timeout_seconds": seconds}),
        task=SETTINGS.task,
        budget=BudgetSettings(gate_seconds=seconds, memory_gib=1),
    )
    spec = make_spec(
        source,
        settings,
        corpus,
        gate=gate if gated else None,
        rungs=rung_steps(settings),
        floored=False,
        contends_below=None,
        seed=0,
        folder=folder,
    )
    return list(run_trial(spec, box))


def test_a_good_candidate_is_certified_measured_and_scored(box, corpus, tmp_path):
    certificate, *rungs, last = run(GOOD, box, corpus, tmp_path)
    assert set(certificate["certificate"]["checks"]) >= {"static", "contract", "causality", "purity", "cost", "novelty"}
    assert [rung["rung"]["step"] for rung in rungs] == [3, 12]
    assert last["outcome"]["kind"] == "fitness"
    assert last["outcome"]["score"] == -last["outcome"]["bits_per_byte"]
    assert last["outcome"]["peak_bytes"] > 0
    assert 0 < last["cost"]["gate_seconds"] < last["cost"]["total_seconds"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_candidate_is_rejected_in_the_gate(name, box, corpus, tmp_path):
    (last,) = run(HOSTILE_SOURCE.format(body=HOSTILE[name]), box, corpus, tmp_path, seconds=6)
    assert last["outcome"]["kind"] == "rejected"
    assert last["outcome"]["check"] == ("static" if name == "leaves" else "contract")
    assert last["cost"]["train_seconds"] == 0


@pytest.mark.parametrize(
    ("name", "cause"), [("loops", "timeout"), ("allocates", "memory"), ("raises", "raised"), ("leaves", "raised")]
)
def test_a_hostile_candidate_past_the_gate_is_a_crash(name, cause, box, corpus, tmp_path):
    seconds = 6 if name == "loops" else 120  # a slow machine needs its time to fill the memory
    (last,) = run(HOSTILE_SOURCE.format(body=HOSTILE[name]), box, corpus, tmp_path, gated=False, seconds=seconds)
    assert last["outcome"]["kind"] == "crashed"
    assert last["outcome"]["cause"] == cause
