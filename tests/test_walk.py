"""Random walks through the gate: what is drawn, what is counted, and one through the real gate."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import Barren, FakeSpace, genes_of

from nas.cli import main
from nas.commands.walk import LONGEST, Walker, alike, markdown, summary
from nas.errors import UserError
from nas.types import Candidate, Operator

SMALL = ["experiment=smoke", "execution.workers=1", "walk.candidates=2", "seed=3"]


class Defective(FakeSpace):
    """A space with a bug in one operator."""

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        if operator.name == "norm":
            raise ZeroDivisionError("a bug")
        return super().mutate(operator, parents, rng)


def walker(space: FakeSpace | None = None, seed: int = 0) -> Walker:
    space = space or FakeSpace()
    return Walker(space, list(space.baselines().values()), seed)


def passed(fingerprint: str, seconds: float = 1.0) -> dict[str, Any]:
    return {"certificate": {"fingerprint": fingerprint}, "seconds": seconds}


def rejected(reason: str) -> dict[str, Any]:
    return {"outcome": {"kind": "rejected", "check": "causality", "reason": reason}, "seconds": 3.0}


def test_a_seed_fixes_the_walks() -> None:
    first, again, other = (list(walker(seed=seed).distinct(30)) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first[:10] == list(walker(seed=1).distinct(10)), "a longer walk begins as a shorter one"


def test_walks_end_at_different_sources_that_are_no_baselines() -> None:
    drawn = walker()
    ids = [walk.candidate.id for walk in drawn.distinct(200) if walk.candidate]
    assert len(set(ids)) == 200 and not set(ids) & {start.id for start in drawn.starts}
    assert {len(walk.operators) for walk in drawn.walks} == set(range(1, LONGEST + 1))
    assert {name for walk in drawn.walks for name in walk.operators} == {o.name for o in FakeSpace().operators}
    assert {walk.start for walk in drawn.walks} == set(FakeSpace().baselines())
    assert drawn.copies > 0


def test_operators_are_drawn_evenly_among_those_that_apply() -> None:
    """For `plain` all but `simplify` apply: of 3,000 first mutations each has a fifth, within four deviations."""
    drawn, rng = walker(), random.Random(0)
    plain = FakeSpace().baselines()["plain"]
    steps = [drawn._step(plain, rng) for _ in range(3000)]
    counts = [sum(step.operator == name for step in steps if step) for name in ("decay", "write", "norm", "crossover")]
    assert all(abs(count - 600) < 4 * (3000 * 0.2 * 0.8) ** 0.5 for count in counts), counts
    assert set(drawn.refused) == {("simplify", "nothing to take out")}


def test_a_space_with_nothing_new_ends_the_walks() -> None:
    small = walker(FakeSpace(values=2))
    genes = [tuple(genes_of(walk.candidate.source)) for walk in small.distinct(100) if walk.candidate]
    assert len(genes) == 13, "sixteen programs, three of them baselines"
    with pytest.raises(UserError, match="nothing to change"):
        summary(_exhausted(walker(Barren())), {})


def _exhausted(drawn: Walker) -> Walker:
    assert list(drawn.distinct(1)) == []
    return drawn


def test_a_defect_of_the_space_is_a_crash_with_its_text() -> None:
    drawn = walker(Defective())
    verdicts = {walk.candidate.id: passed(walk.candidate.id) for walk in drawn.distinct(20) if walk.candidate}
    report = summary(drawn, verdicts)
    assert report["crashed"] == report["candidates"] - report["passed"] == 20 - len(verdicts) > 0
    (failure,) = report["failures"]
    assert (failure["check"], failure["reason"]) == ("mutate", "ZeroDivisionError: a bug")
    assert "in mutate" in report["rows"][failure["first"]]["reason"], "the traceback is kept"


def test_the_counts() -> None:
    drawn = walker()
    ids = [walk.candidate.id for walk in drawn.distinct(12) if walk.candidate]
    verdicts = {name: passed(name, seconds=index) for index, name in enumerate(ids)}
    verdicts[ids[3]] = passed(ids[1], seconds=3)
    verdicts[ids[4]], verdicts[ids[7]] = rejected("output 17 moved"), rejected("output 3 moved")
    report = json.loads(json.dumps(summary(drawn, verdicts), allow_nan=False))
    assert (report["passed"], report["rejected"], report["crashed"]) == (10, 2, 0)
    assert report["failures"] == [
        {"kind": "rejected", "check": "causality", "reason": "output # moved", "count": 2, "first": 4}
    ]
    assert report["same_function_as_an_earlier_one"] == 1 and report["rows"][3]["same_function_as"] == 1
    assert sum(rate["of"] for rate in report["by_mutations"].values()) == 12
    assert sum(rate["passed"] for rate in report["by_last_operator"].values()) == 10
    assert report["rows"][4]["source"] and "source" not in report["rows"][5]
    assert report["seconds"]["max"] == 11
    opening = {"command": "nas walk", "machine": "one core", "versions": {}, "minutes": 1.0}
    text = markdown({**opening, **report})
    assert "10 of 12 candidates passed (83.3% [51.6, 97.9])" in text  # Clopper and Pearson's table
    assert "| rejected | causality | output # moved | 2 | 4 |" in text


def test_all_of_ten_bound_the_share_from_below_as_theory_says() -> None:
    drawn = walker()
    rate = summary(drawn, {w.candidate.id: passed(w.candidate.id) for w in drawn.distinct(10) if w.candidate})
    assert rate["pass_rate"]["low"] == pytest.approx(0.025 ** (1 / 10)) and rate["pass_rate"]["high"] == 1


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("grew by 1.5e-3 at 64 tokens", "grew by # at # tokens"),
        (
            "Traceback (most recent call last):\n  line 3\njax.errors.TypeError: no 5\n----\nmore",
            "jax.errors.TypeError: no #",
        ),
        ("raised ValueError:\nno | such", "raised ValueError: no | such"),
    ],
)
def test_one_defect_has_one_reason(reason: str, expected: str) -> None:
    assert alike(reason) == expected


def test_the_real_gate_says_what_it_says_and_is_not_asked_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["walk", *SMALL, f"results_dir={tmp_path}"]
    assert main(command) == 0
    first = json.loads((tmp_path / "walk.json").read_text())
    assert first["passed"] + first["rejected"] == 2 and first["crashed"] == 0
    assert all(row["seconds"] > 0.1 for row in first["rows"])
    assert main(command) == 0
    again = json.loads((tmp_path / "walk.json").read_text())
    assert again["rows"] == first["rows"], "the seconds too: nothing was measured again"
    assert "going on with the 2 results in " in capfd.readouterr().out
    assert (tmp_path / "walk.md").read_text().startswith("# Random walks through the gate\n\n    nas walk experiment=")
