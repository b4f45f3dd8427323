"""The vocabulary: names that depend on what a program says, and values that go through JSON unharmed."""

import json
import math
import re
from dataclasses import asdict, replace
from typing import Any

import pytest
from fakes import fitness

from nas.fitness import FITNESS, fitness_of
from nas.types import (
    Budget,
    Candidate,
    Certificate,
    Cost,
    Crashed,
    Fitness,
    Held,
    Outcome,
    Rejected,
    Rung,
    Trial,
    candidate_from_json,
    candidate_to_json,
    canonical_source,
    outcome_from_json,
    outcome_kind,
    outcome_to_json,
    source_id,
    trial_from_json,
    trial_to_json,
)

PROGRAM = '''"""A mixer."""

import math


class TokenMixer:
    """It mixes."""

    def step(self, x_t, state):
        """One token."""
        return x_t + math.pi, {"a": state}  # the same state


async def helper():
    """Alone."""
'''

SAME = {
    "no comments": PROGRAM.replace("  # the same state", ""),
    "other comments": "# before\n" + PROGRAM + "# after\n",
    "other docstrings": PROGRAM.replace("It mixes", "It blends").replace("A mixer", "Another"),
    "no docstrings": re.sub(r'""".*"""', "", PROGRAM).rstrip() + "\n    pass\n",
    "docstring twice": PROGRAM.replace('"""It mixes."""', '"""It mixes."""\n    """And blends."""'),
    "blank lines": PROGRAM.replace("\n\n\n", "\n\n\n\n\n"),
    "brackets": PROGRAM.replace("return x_t + math.pi,", "return (x_t + math.pi),"),
    "quotes": PROGRAM.replace('"a"', "'a'"),
    "continuation": PROGRAM.replace("x_t + math.pi", "(x_t\n            + math.pi)"),
    "carriage returns": PROGRAM.replace("\n", "\r\n"),
    "tabs": PROGRAM.replace("    ", "\t"),
    "no newline at the end": PROGRAM.rstrip(),
}
OTHER = {
    "operation": PROGRAM.replace("x_t +", "x_t *"),
    "name": PROGRAM.replace("state", "memory"),
    "string": PROGRAM.replace('"a"', '"b"'),
    "order": PROGRAM.replace("x_t + math.pi", "math.pi + x_t"),
    "number": PROGRAM.replace("math.pi", "3"),
}
UNPARSABLE = {
    "syntax": "def f(:\n",
    "nul": "x = 1\0",
    "nested": "(" * 5000 + ")" * 5000,
    "deep": "-" * 20_000 + "1",
    "surrogate": "x = '\ud800'",
    "indentation": "if x:\ny",
}


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_looks_do_not_change_the_id(source: str) -> None:
    assert source != PROGRAM
    assert source_id(source) == source_id(PROGRAM)


@pytest.mark.parametrize("source", OTHER.values(), ids=OTHER)
def test_what_is_computed_changes_the_id(source: str) -> None:
    assert source_id(source) != source_id(PROGRAM)


@pytest.mark.parametrize("source", [*SAME.values(), *OTHER.values()])
def test_the_canonical_source_is_its_own(source: str) -> None:
    assert canonical_source(canonical_source(source)) == canonical_source(source)


@pytest.mark.parametrize("source", UNPARSABLE.values(), ids=UNPARSABLE)
def test_what_is_no_program_has_an_id(source: str) -> None:
    assert len(source_id(source)) == 12 and int(source_id(source), 16) >= 0
    assert source_id(source) == Candidate(source, "file").id != source_id(source + "#")


def test_ids_of_programs_that_do_not_parse_differ() -> None:
    assert len({source_id(source) for source in UNPARSABLE.values()}) == len(UNPARSABLE)


OUTCOMES: dict[str, Outcome] = {
    "fitness": replace(fitness(2.125), probes={"recall": 0.1 + 0.2}),
    "rejected": Rejected("causality", 'output 17 moved\nwhen "input" 40 changed \u2028 \x00'),
    "crashed": Crashed("raised", "Traceback\n  é \U0001f600"),
    "held": Held("leap", "it gains 0.5\n\x1b[31m", replace(fitness(0.125), probes={"recall": 1.0})),
    "rescored": Held("rescore", "", replace(fitness(2.0), held_out_bits_per_byte=2.5, held_out_stderr=0.01)),
}
CERTIFICATES = {
    "certificate": Certificate({"parity": "ok"}, 10.5, 20, None, {"flops": 1.0, "memory": 0.97}, "f00d"),
    "stateful": Certificate({}, 1e-300, 0, 4096, {}, ""),
    "none": None,
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_an_outcome_survives_json(kind: str) -> None:
    outcome = OUTCOMES[kind]
    record = json.loads(json.dumps(outcome_to_json(outcome), allow_nan=False))
    assert record["kind"] == outcome_kind(outcome) == {"rescored": "held"}.get(kind, kind)
    assert outcome_from_json(record) == outcome


@pytest.mark.parametrize("certificate", CERTIFICATES.values(), ids=CERTIFICATES)
@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_a_trial_survives_json(outcome: Outcome, certificate: Certificate | None) -> None:
    candidate = Candidate(PROGRAM, "decay", ("abc", "def"), "grammar", "why\nnot", "name")
    rungs = (Rung(10, 1 / 3, 0.1, 1e4), Rung(20, math.nextafter(1, 2)))
    trial = Trial("t0001", candidate, "search", Budget(20, 7), outcome, Cost(1, 2, 3.5), rungs, certificate, True)
    record = json.loads(json.dumps(trial_to_json(trial), allow_nan=False))
    assert trial_from_json(record) == trial
    assert record["candidate"]["id"] == candidate.id
    assert trial_from_json({**record, "event": "trial", "time": 1.0, "gain": None}) == trial


@pytest.mark.parametrize("source", [PROGRAM, *UNPARSABLE.values()])
def test_a_candidate_survives_json(source: str) -> None:
    candidate = Candidate(source, "decay", ("abc",), "grammar", "why", "name")
    again = candidate_from_json(json.loads(json.dumps(candidate_to_json(candidate))))
    assert again == candidate and again.id == candidate.id and isinstance(again.parents, tuple)


def test_a_false_id_is_not_believed() -> None:
    record = {**candidate_to_json(Candidate(PROGRAM, "decay")), "id": "0" * 12}
    assert candidate_from_json(record).id == source_id(PROGRAM)


@pytest.mark.parametrize("kind", ["", "Fitness", "success", None])
def test_an_unknown_outcome_is_refused(kind: Any) -> None:
    with pytest.raises(KeyError):
        outcome_from_json({"kind": kind, "check": "a", "reason": "b"})


NO_NUMBERS = [math.nan, math.inf, -math.inf, None, "2.0", [2.0]]
MEASURED = asdict(fitness(2.0))
HELD_OUT = ("held_out_bits_per_byte", "held_out_stderr")
ALWAYS_MEASURED = [name for name in MEASURED if name not in ("probes", "learning_rate", *HELD_OUT)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
@pytest.mark.parametrize("name", ALWAYS_MEASURED)
def test_what_is_not_finite_is_never_a_fitness(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Fitness(**{**MEASURED, name: value})
    assert isinstance(fitness_of({**MEASURED, name: value}, "bits_per_byte"), Crashed) or name == "score"


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_a_probe_is_finite_too(value: Any) -> None:
    with pytest.raises(ValueError, match="recall"):
        Fitness(**{**MEASURED, "probes": {"recall": value}})


@pytest.mark.parametrize("name", [name for name in ALWAYS_MEASURED if name != "score"])
def test_what_was_not_measured_is_no_fitness(name: str) -> None:
    measured = {key: value for key, value in MEASURED.items() if key != name}
    assert isinstance(fitness_of(measured, "bits_per_byte"), Crashed)


@pytest.mark.parametrize("value", [value for value in NO_NUMBERS if value is not None], ids=str)
@pytest.mark.parametrize("name", [*HELD_OUT, "learning_rate"])
def test_what_need_not_be_there_is_finite_where_it_is(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Fitness(**{**MEASURED, **dict.fromkeys(HELD_OUT, 2.0), name: value})


def test_one_held_out_number_without_the_other_is_refused() -> None:
    for name in HELD_OUT:
        with pytest.raises(ValueError, match="held_out"):
            Fitness(**{**MEASURED, name: 2.0})


def test_a_candidate_cannot_measure_its_own_held_out_score() -> None:
    made = fitness_of({**MEASURED, **dict.fromkeys(HELD_OUT, 0.5)}, "bits_per_byte")
    assert isinstance(made, Fitness) and made.held_out_bits_per_byte is None


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
def test_rungs_and_certificates_are_finite(value: Any) -> None:
    with pytest.raises(ValueError):
        Rung(10, value)
    with pytest.raises(ValueError):
        Certificate({}, value, 20, None, {}, "")
    with pytest.raises(ValueError):
        Certificate({}, 1.0, 20, None, {"flops": value}, "")


@pytest.mark.parametrize("kind", FITNESS)
def test_every_fitness_prefers_fewer_bits(kind: str) -> None:
    better, worse = (fitness_of({**MEASURED, "bits_per_byte": bits}, kind) for bits in (2.0, 2.1))
    assert isinstance(better, Fitness) and isinstance(worse, Fitness)
    assert better.score > worse.score


def test_an_unknown_fitness_is_no_crash_of_the_candidate() -> None:
    with pytest.raises(KeyError):
        fitness_of(MEASURED, "accuracy")
