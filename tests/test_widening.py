"""Whom a proposal is drawn from after misses: twice as many parents with every few, and operators in turn."""

import random
from collections.abc import Sequence

import pytest
from fakes import fitness

from nas.population import Population
from nas.proposers import Request
from nas.settings import SearchSettings
from nas.types import Budget, Candidate, Cost, Operator, Trial
from nas.widening import Width, widened

DECAY, WRITE, CROSS = Operator("decay", "."), Operator("write", "."), Operator("cross", ".", parents=2)


def trained(count: int) -> tuple[Population, list[Candidate]]:
    """A population of so many, best first, of whom two are elites."""
    population, found = Population(SearchSettings(elites=2)), []
    for number in range(count):
        found.append(Candidate(f"x = {number}\n", "baseline"))
        outcome = fitness(2.0 + number)
        population.land(Trial(f"t{number:04d}", found[-1], "baseline", Budget(40, 0), outcome, Cost()), "delta", None)
    return population, found


def missed(operators: Sequence[Operator], parent: Candidate) -> list[Request]:
    return [Request(operator, [parent], 0, random.Random(0), 0) for operator in operators]


def width(count: int, operators: Sequence[Operator], misses: Sequence[Operator] = (), running: bool = True) -> Width:
    population, found = trained(count)
    return widened(population, 0, operators, missed(misses, found[0]) if misses else [], running)


def test_without_a_miss_the_elites_are_parents_and_everybody_may_choose() -> None:
    found = width(20, [DECAY, WRITE, CROSS])
    assert (found.breadth, found.parents, found.operators) == (1, 2, ["decay", "write", "cross"])


def test_an_operator_needs_as_many_parents_as_it_takes() -> None:
    assert width(1, [DECAY, CROSS]).operators == ["decay"]
    assert width(1, [DECAY, CROSS], [DECAY]).operators == ["decay"], "who can't be chosen lets nobody go first"
    assert width(0, [DECAY, CROSS]) == Width(1, 0, [], {})


@pytest.mark.parametrize(("misses", "parents"), [(2, 2), (3, 4), (5, 4), (6, 8), (9, 16), (12, 20), (60, 20)])
def test_with_every_third_miss_twice_as_many_are_parents_until_everybody_is(misses: int, parents: int) -> None:
    assert width(20, [DECAY], [DECAY] * misses).parents == parents


def test_who_has_missed_lets_the_others_go_first() -> None:
    assert width(20, [DECAY, WRITE, CROSS], [DECAY]).operators == ["write", "cross"]
    assert width(20, [DECAY, WRITE, CROSS], [DECAY, WRITE, CROSS]).operators == ["decay", "write", "cross"]


def test_a_parent_with_which_an_operator_missed_had_its_turn() -> None:
    population, (best, *_) = trained(20)
    assert widened(population, 0, [DECAY, WRITE], missed([DECAY, WRITE], best), True).expected == {best.id: 2}


@pytest.mark.parametrize(
    ("running", "among_all"), [(True, 3), (False, 16)], ids=["while trials run", "when nothing runs"]
)
def test_an_operator_that_missed_among_everybody_is_left_out(running: bool, among_all: int) -> None:
    before = 3 * 4  # misses until all of 20 are parents, of whom two are elites
    assert width(20, [DECAY], [DECAY] * (before + among_all - 1), running).operators == ["decay"]
    assert width(20, [DECAY], [DECAY] * (before + among_all), running).operators == []


def test_no_operator_misses_more_often_than_there_are_parents() -> None:
    assert width(5, [DECAY], [DECAY] * (3 * 2 + 4), running=False).operators == ["decay"]
    assert width(5, [DECAY], [DECAY] * (3 * 2 + 5), running=False).operators == []
