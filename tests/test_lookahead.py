"""Parent and operator, chosen by the children that they could have."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from fakes import FakeSpace, make_settings, simulate, source_of, start

from nas.lookahead import Lookahead
from nas.meta import Measured
from nas.predictor import Predictor
from nas.types import Candidate, Operator

SPACE = FakeSpace(values=3)
OPERATORS = {operator.name: operator for operator in SPACE.operators}
GOOD, BAD = (Candidate(source_of(genes), "") for genes in ((0, 2, 2, 2), (1, 1, 1, 1)))


def genome(*genes: int) -> dict[str, str]:
    return dict(SPACE.describe(source_of(genes)))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The more parts 2, the better; few that have many of them were trained."""
    rng, found = random.Random(0), Predictor()
    every = [[rng.randrange(3) for _ in range(4)] for _ in range(120)]
    for genes in sorted(every, key=lambda one: one.count(2))[:60]:
        found.learn(Measured(genome(*genes), 40, 4.0 - 0.3 * genes.count(2) + rng.gauss(0, 0.01)))
    return found


def prospects(predictor: Predictor, tried: set[frozenset[tuple[str, str]]]) -> Counter[str]:
    """How often each parent is chosen."""
    choices = [{name: [parent] for name in ("decay", "write", "read", "norm")} for parent in (BAD, GOOD)]
    won: Counter[str] = Counter()
    for seed in range(60):
        found = Lookahead(SPACE, OPERATORS, predictor, tried).prospect(choices, random.Random(seed))
        assert found and found.parents in choices
        assert found.foreseen.keys() <= found.parents.keys()
        won["good" if found.parents["decay"] == [GOOD] else "bad"] += 1
    return won


def test_the_parent_with_the_best_new_child_is_chosen(predictor: Predictor) -> None:
    assert prospects(predictor, set())["good"] > 45


def test_what_was_tried_is_no_prospect(predictor: Predictor) -> None:
    one_change = {(first, 2, 2, 2) for first in range(3)} | {
        tuple(other if at == slot else gene for at, gene in enumerate((0, 2, 2, 2)))
        for slot in range(4)
        for other in range(3)
    }
    tried = {frozenset(genome(*genes).items()) for genes in one_change}
    assert prospects(predictor, tried) == {"bad": 60}


def test_nothing_is_foreseen_while_nothing_is_known() -> None:
    assert Lookahead(SPACE, OPERATORS, Predictor(), set()).prospect([{"decay": [GOOD]}], random.Random(0)) is None


def test_an_operator_that_takes_no_parent_is_not_looked_ahead_of(predictor: Predictor) -> None:
    operators = {**OPERATORS, "file": Operator("file", "what a person wrote", parents=0)}
    found = Lookahead(SPACE, operators, predictor, set()).prospect([{"file": [], "decay": [GOOD]}], random.Random(0))
    assert found and found.foreseen.keys() == {"decay"}
    assert Lookahead(SPACE, operators, predictor, set()).prospect([{"file": []}], random.Random(0)) is None


def test_what_is_kept_of_a_parent_changes_no_choice(predictor: Predictor) -> None:
    """A search that is resumed has nothing kept, and has to choose as before."""
    choices = [{name: [parent, BAD][: one.parents] for name, one in OPERATORS.items()} for parent in (GOOD, BAD)]
    kept = Lookahead(SPACE, OPERATORS, predictor, set())
    for seed in range(10):
        fresh = Lookahead(SPACE, OPERATORS, predictor, set())
        assert kept.prospect(choices, random.Random(seed)) == fresh.prospect(choices, random.Random(seed))


@pytest.mark.parametrize("explore", [0.0, 0.5])
def test_a_search_looks_ahead_of_the_best_few_and_now_and_then_of_another(explore: float) -> None:
    search, _ = start(replace(make_settings("foresight", trials=60, explore=explore), seed=1), FakeSpace(values=20))
    simulate(search)
    best = [trial.candidate for trial in search.population.parents_of(0)[:3]]
    rng = random.Random(0)
    others = [one for _ in range(50) if (one := search.population.looked_ahead_of(rng, 0)) != best]
    assert all(len(parents) == 1 for parents in others)
    assert 10 < len(others) < 40 if explore else not others
