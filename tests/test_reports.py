"""What a contained process sends is used only if it is of the shape and size that it should be."""

import json
from pathlib import Path

import pytest
from test_rescore import HONEST
from test_trial import SETTINGS

from nas.gate import CHECKS
from nas.reports import Certified, Ended, Exported, Measured, Refused, Scored, read
from nas.search import rung_steps
from nas.trial import ANY, gate_arguments, make_spec, run_gate, run_trial

MEASURED = {
    "step": 12,
    "bits_per_byte": 2.5,
    "stderr": 0,
    "learning_rate": 0.004,
    "train_seconds": 1.0,
    "tokens_per_second": 10.0,
    "peak_bytes": 1000,
    "flops_per_token": 1e6,
    "params": 10,
}
CERTIFIED = {
    "checks": dict.fromkeys(CHECKS, "holds"),
    "flops_per_token": 1.0,
    "params": 1,
    "state_bytes": None,
    "exponents": {"flops": 1.0},
    "fingerprint": "ab",
}
SCORED = {"bits_per_byte": 2.5, "held_out_bits_per_byte": 2.5, "held_out_stderr": 0.1, "fault": None}
NO_NUMBERS = [True, "1", None, [], {}, float("nan"), float("inf"), -float("inf"), 1e31, 10**400]


def test_what_is_right_is_read() -> None:
    measured = read(Measured, {**MEASURED, "extra": "x" * 10**6})
    assert measured is not None and measured.model_dump() == MEASURED
    assert read(Certified, CERTIFIED) and read(Scored, SCORED)
    assert read(Refused, {"check": "cost", "reason": "x"}) and read(Ended, {"cause": "floor", "reason": ""})
    assert read(Exported, {"program": "", "names": ["a/b"]})


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_is_numbers(name: str, value: object) -> None:
    assert read(Measured, {**MEASURED, name: value}) is None


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("name", ["bits_per_byte", "held_out_bits_per_byte", "held_out_stderr"])
def test_a_score_is_numbers(name: str, value: object) -> None:
    assert read(Scored, {**SCORED, name: value}) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"step": 100.0},
        {"step": 0},
        {"params": -1},
        {"peak_bytes": 1.5},
    ],
)
def test_a_count_is_whole(changed: dict) -> None:
    assert read(Measured, {**MEASURED, **changed}) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"checks": {}},
        {"checks": CERTIFIED["checks"] | {"extra": "x"}},
        {"checks": CERTIFIED["checks"] | {"cost": 1}},
        {"state_bytes": ""},
        {"exponents": {"x" * 100: 1.0}},
        {"exponents": {str(number): 1.0 for number in range(100)}},
        {"fingerprint": "x" * 100},
        {"fingerprint": None},
        {"params": True},
    ],
)
def test_a_certificate_is_the_gates(changed: dict) -> None:
    assert read(Certified, {**CERTIFIED, **changed}) is None


@pytest.mark.parametrize("sent", [None, 1, "x", [], {}, {"check": "other", "reason": "x"}, {"check": "cost"}])
def test_what_is_no_rejection_is_none(sent: object) -> None:
    assert read(Refused, sent) is None


def test_words_have_an_end() -> None:
    refused = read(Refused, {"check": "cost", "reason": "x" * 10**6})
    assert refused is not None and len(refused.reason) == 2000
    certified = read(Certified, {**CERTIFIED, "checks": dict.fromkeys(CHECKS, "x" * 10**6)})
    assert certified is not None and len(json.dumps(certified.model_dump())) < 20_000


class Forger:
    """A box in which everything says what it likes."""

    def __init__(self, *messages: dict) -> None:
        self.messages = messages

    def run(self, *arguments: object) -> object:
        yield from self.messages


@pytest.mark.parametrize(
    "result",
    [None, 1, [], {}, {"certificate": {}}, {"certificate": 1}, {"rejected": None}, {"rejected": {"check": "x" * 99}}],
)
def test_a_forged_verdict_is_a_crash(result: object) -> None:
    gate = gate_arguments(SETTINGS, ["jax"], known={}, reference_flops=None)
    verdict = run_gate("", gate, Forger({"started": "x"}, {"result": result}), Path(), 1, 1)  # type: ignore[arg-type]
    assert verdict["outcome"]["kind"] == "crashed" and "certificate" not in verdict


@pytest.mark.parametrize(
    "messages",
    [
        [{"rung": {**MEASURED, "step": 13}}],
        [{"rung": 1}],
        [{"rung": {**MEASURED, "step": 3}}, {"rung": {**MEASURED, "step": 3}}],
        [{"result": {"crashed": {"cause": "infrastructure", "reason": "x"}}}],
        [{"result": {"crashed": 1}}],
        [{"result": 7}],
        [{"result": {"trained": True}}],
    ],
)
def test_a_forged_training_is_a_crash(messages: list, corpus, tmp_path) -> None:
    settings = {"gate": None, "rungs": rung_steps(SETTINGS), "floored": False, "seed": 0, "folder": tmp_path}
    spec = make_spec(HONEST, SETTINGS, corpus, contends_below=ANY, **settings)
    *_, last = run_trial(spec, Forger(*messages))  # type: ignore[arg-type]
    assert last["outcome"]["kind"] == "crashed" and last["outcome"]["cause"] in ("killed", "diverged")


@pytest.mark.parametrize("result", [None, 5, {}, {"program": 1, "names": []}, {"program": "", "names": 5}, SCORED])
def test_a_forged_rescoring_is_held(result: object, corpus, tmp_path) -> None:
    settings = {"gate": None, "rungs": (12,), "floored": False, "seed": 0, "folder": tmp_path}
    spec = make_spec(HONEST, SETTINGS, corpus, contends_below=ANY, **settings)
    honest = [{"rung": MEASURED, "decided": False}, {"result": {"trained": True}}]

    class Liar(Forger):
        def run(self, function: str, *arguments: object) -> object:
            yield from honest if function == "nas.train:boxed" else [{"result": result}]

    *_, last = run_trial(spec, Liar())  # type: ignore[arg-type]
    assert last["outcome"]["kind"] == "held" and last["outcome"]["tripwire"] == "rescore"
