"""Who becomes a parent: where children land, what migrates, that elites survive, what a restart leaves."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from fakes import fitness

from nas.population import Population, behaviour
from nas.settings import SearchSettings
from nas.types import Budget, Candidate, Certificate, Cost, Crashed, Trial


def candidate(number: int, *parents: Trial) -> Candidate:
    return Candidate(f"x = {number}\n", "decay", tuple(parent.candidate.id for parent in parents))


def trial(number: int, bits: float, purpose: str = "search", probes: dict[str, float] | None = None) -> Trial:
    outcome = replace(fitness(bits), probes=probes or {})
    return Trial(f"t{number:04d}", candidate(number), purpose, Budget(40, 0), outcome, Cost())


def population_of(*trials: Trial, family: str = "delta", outside: Sequence[str] = (), **settings: Any) -> Population:
    """Everybody is of one family, and at home everywhere."""
    population = Population(SearchSettings(**{"explore": 0.0, **settings}), outside)
    for each in trials:
        population.land(each, family, None)
    return population


def frequencies(population: Population, draws: int = 20_000, island: int = 0) -> dict[str, float]:
    rng = random.Random(0)
    chosen = Counter(population.choose_parents(1, rng, island)[0].id for _ in range(draws))
    return {name: count / draws for name, count in chosen.items()}


def names(trials: Sequence[Trial]) -> list[str]:
    return [each.id for each in trials]


# The choice


@pytest.mark.parametrize("children", [(0, 0, 0, 0), (5, 0, 0, 1), (100, 0, 0, 0)])
def test_parents_are_chosen_by_rank_and_children(children: tuple[int, ...]) -> None:
    trials = [trial(number, 2.0 + number) for number in range(6)]
    population = population_of(*trials, elites=4)
    for parent, count in zip(trials, children, strict=False):
        for number in range(count):
            population.note_child(candidate(100 + number, parent))
    weights = [1 / ((1 + rank) * (1 + count)) for rank, count in enumerate(children)]
    expected = {t.candidate.id: w / sum(weights) for t, w in zip(trials, weights, strict=False)}
    assert frequencies(population) == pytest.approx(expected, abs=0.015), "and the fifth is no elite"


@pytest.mark.parametrize("explore", [0.25, 1.0])
def test_with_exploration_any_of_them_may_be_a_parent(explore: float) -> None:
    trials = [trial(number, 2.0 + number) for number in range(4)]
    by_rank = [12 / 25, 6 / 25, 4 / 25, 3 / 25]
    expected = {t.candidate.id: explore / 4 + (1 - explore) * w for t, w in zip(trials, by_rank, strict=True)}
    assert frequencies(population_of(*trials, explore=explore)) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("count", range(7))
def test_parents_differ_and_are_as_many_as_there_are(count: int) -> None:
    population = population_of(*(trial(number, 2.0 + number) for number in range(5)), elites=4)
    for seed in range(50):
        parents = population.choose_parents(count, random.Random(seed), 0)
        assert len({parent.id for parent in parents}) == len(parents) == min(count, 4)
        assert parents == population.choose_parents(count, random.Random(seed), 0)


def test_a_given_parent_comes_first_and_only_once() -> None:
    trials = [trial(number, 2.0 + number) for number in range(3)]
    population = population_of(*trials)
    for seed in range(50):
        given = [trials[2].candidate]
        first, second = population.choose_parents(2, random.Random(seed), 0, given)
        assert first == trials[2].candidate and second != first
        assert population.choose_parents(1, random.Random(seed), 0, given) == given
        assert population.choose_parents(0, random.Random(seed), 0, given) == []


def test_every_proposal_is_a_child_of_each_of_its_parents() -> None:
    first, second = trial(0, 2.0), trial(1, 2.0)
    population = population_of(first, second)
    population.note_child(candidate(7, first, second))
    population.note_child(candidate(8, first))
    weights = [1 / 3, 1 / 2 / 2]
    assert frequencies(population)[first.candidate.id] == pytest.approx(weights[0] / sum(weights), abs=0.015)


def test_children_that_are_being_made_count() -> None:
    first, second = trial(0, 2.0), trial(1, 2.0)
    population, rng = population_of(first, second), random.Random(0)
    expected = {first.candidate.id: 1000}
    chosen = [population.choose_parents(1, rng, 0, expected=expected)[0] for _ in range(200)]
    assert chosen.count(second.candidate) > 190


def test_what_is_trained_for_comparison_alone_is_nobodys_parent() -> None:
    outside, only = trial(0, 0.5, "baseline"), trial(1, 2.0)
    population = population_of(outside, only, outside=[outside.candidate.id])
    assert population.parents_of(0) == [only]


def test_what_was_not_trained_does_not_land() -> None:
    population = population_of(replace(trial(0, 2.0), outcome=Crashed("raised", "Error")))
    assert population.parents_of(0) == [] and population.choose_parents(1, random.Random(0), 0) == []


def test_what_is_told_twice_lands_once() -> None:
    population = population_of(trial(0, 2.0), trial(0, 1.0))
    assert population.parents_of(0) == [trial(0, 2.0)]


# Behaviour


def test_a_behaviour_is_family_state_recall_and_tracking() -> None:
    certificate = Certificate({}, 1e4, 100, 3000, {}, "f")
    known = replace(trial(0, 2.0, probes={"mqar": 0.9, "induction": 0.7, "parity": 0.3}), certificate=certificate)
    assert behaviour(known, "delta") == ("delta", "2^12 bytes", "recall 3/4", "tracking 1/4")
    assert behaviour(trial(0, 2.0), "delta") == ("delta", "unknown state", "recall unknown", "tracking unknown")


def test_the_best_of_each_behaviour_stays_a_parent_however_bad() -> None:
    population = population_of(*(trial(number, 2.0 + 0.01 * number) for number in range(20)), elites=3)
    for number, bits in ((30, 5.0), (31, 4.0), (32, 6.0)):
        population.land(trial(number, bits), "decaying", 0)
    assert names(population.parents_of(0)) == ["t0000", "t0001", "t0002", "t0031"]


def test_elites_survive_whatever_lands() -> None:
    best = trial(0, 0.5)
    population = population_of(best, elites=2)
    rng = random.Random(0)
    for number in range(1, 300):
        population.land(trial(number, 1 + rng.random()), rng.choice("abc"), 0)
        assert population.parents_of(0)[0] == best


def test_a_new_score_ranks_anew() -> None:
    population = population_of(trial(0, 2.0), trial(1, 3.0), elites=1)
    population.rescore({each.candidate.id: each for each in (trial(0, 2.0), trial(1, 1.0))})
    assert population.parents_of(0) == [trial(1, 1.0)]


# Islands


def test_a_child_lands_where_its_parents_were_chosen_and_a_baseline_everywhere() -> None:
    population = population_of(trial(0, 2.0, "baseline"), islands=3)
    population.land(trial(1, 1.0), "delta", 1)
    assert [names(population.parents_of(island)) for island in range(3)] == [["t0000"], ["t0001", "t0000"], ["t0000"]]


def test_islands_take_turns() -> None:
    population = population_of(islands=3)
    assert [population.island_of(number) for number in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("migrants", [0, 1, 2])
def test_migration_moves_the_best_of_each_island_one_further(migrants: int) -> None:
    population = population_of(islands=3, migrate_every=6, migrants=migrants)
    for number in range(5):
        population.land(trial(number, 2.0 + number), "delta", number % 3)
    assert [len(population.parents_of(island)) for island in range(3)] == [2, 2, 1]
    population.land(trial(5, 1.0), "delta", 2)
    came = [[], ["t0005"], ["t0005", "t0002"]][migrants], [[], ["t0000"], ["t0000", "t0003"]][migrants]
    assert names(population.parents_of(0)) == sorted([*came[0], "t0000", "t0003"], key=_bits)
    assert names(population.parents_of(1)) == sorted([*came[1], "t0001", "t0004"], key=_bits)


def _bits(name: str) -> float:
    return 1.0 if name == "t0005" else 2.0 + int(name[1:])


def test_who_migrates_stays_at_home_too_and_comes_once() -> None:
    population = population_of(islands=2, migrate_every=1, migrants=1)
    population.land(trial(0, 1.0), "delta", 0)
    for number in range(1, 8):
        population.land(trial(number, 2.0 + number), "delta", number % 2)
    for island in range(2):
        here = names(population.parents_of(island))
        assert here.count("t0000") == 1 and len(set(here)) == len(here)


def test_one_island_never_migrates() -> None:
    population = population_of(islands=1, migrate_every=1)
    for number in range(5):
        population.land(trial(number, 2.0), "delta", 0)
    assert len(population.parents_of(0)) == 5


# Restarts


def test_a_collapse_restarts_the_worst_island_with_the_best_of_the_other_families() -> None:
    population = population_of(islands=2, migrate_every=1000)
    for number, (bits, family, island) in enumerate(
        [
            (1.0, "delta", 0),
            (2.0, "gated", 0),
            (1.5, "delta", 1),
            (3.0, "gated", 1),
            (2.5, "gated", 1),
            (4.0, "rwkv", 1),
        ]
    ):
        population.land(trial(number, bits), family, island)
    assert population.restart("delta") == 1
    assert names(population.parents_of(1)) == ["t0004", "t0005"], "the best gated one and the only rwkv"
    assert names(population.parents_of(0)) == ["t0000", "t0001"], "the better island goes on"


def test_a_single_island_restarts_and_takes_the_family_back_when_it_lands_again() -> None:
    population = population_of(trial(0, 1.0))
    population.land(trial(1, 3.0), "gated", 0)
    population.restart("delta")
    assert names(population.parents_of(0)) == ["t0001"]
    population.land(trial(2, 1.5), "delta", 0)
    assert names(population.parents_of(0)) == ["t0002", "t0001"]


def test_where_there_is_no_other_family_nothing_is_taken_away() -> None:
    population = population_of(trial(0, 1.0), trial(1, 2.0))
    population.restart("delta")
    assert names(population.parents_of(0)) == ["t0000", "t0001"]
