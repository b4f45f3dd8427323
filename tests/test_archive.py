"""What was trained, how much better it is, and who becomes a parent."""

import random
from dataclasses import replace

import pytest
from fakes import fitness

from nas.archive import Archive, curve_of
from nas.types import Budget, Candidate, Cost, Crashed, Held, Outcome, Rejected, Rung, Trial, outcome_kind


def candidate(number: int, *parents: Trial) -> Candidate:
    return Candidate(f"x = {number}\n", "decay", tuple(parent.candidate.id for parent in parents))


def trial(
    number: int, curve: dict[int, float], *parents: Trial, purpose: str = "search", seed: int = 0, name: str = ""
) -> Trial:
    step = max(curve)
    rungs = tuple(Rung(step, bits) for step, bits in curve.items())
    return Trial(
        name or f"t{number:04d}",
        candidate(number, *parents),
        purpose,
        Budget(40, seed),
        fitness(curve[step], step),
        Cost(),
        rungs,
    )


def archive_of(*trials: Trial, outside: tuple[str, ...] = ()) -> Archive:
    archive = Archive(outside)
    for each in trials:
        archive.add(each)
    return archive


def gain_in(archive: Archive, child: Trial) -> float | None:
    gain = archive.gain(child)
    return gain.bits_per_byte if gain else None


PARENT = trial(0, {10: 3.0, 20: 2.5, 40: 2.0}, purpose="baseline")


# Gain


@pytest.mark.parametrize(
    ("curve", "gain"),
    [
        ({10: 2.9, 20: 2.25, 40: 1.5}, 0.5),
        ({10: 2.9, 20: 2.25}, 0.25),
        ({10: 2.875}, 0.125),
        ({10: 2.0, 20: 2.0, 40: 2.5}, 0.0),
        ({10: 2.0, 20: 2.75}, 0.0),
        ({40: 2.0}, 0.0),
        ({15: 1.0}, None),
        ({10: 2.5, 15: 1.0}, 0.5),
    ],
)
def test_a_gain_is_that_at_the_last_rung_that_both_reached(curve: dict[int, float], gain: float | None) -> None:
    assert gain_in(archive_of(PARENT), trial(1, curve, PARENT)) == gain


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_gain_is_over_the_better_parent(order: tuple[int, int]) -> None:
    parents = (PARENT, trial(1, {10: 2.9, 20: 2.4, 40: 1.75}))
    child = trial(2, {10: 2.5, 20: 2.25, 40: 1.5}, *(parents[index] for index in order))
    assert gain_in(archive_of(*parents), child) == 0.25


def test_without_a_parent_in_the_archive_there_is_no_gain() -> None:
    assert gain_in(archive_of(PARENT), trial(1, {40: 1.0})) is None
    assert gain_in(archive_of(), trial(1, {40: 1.0}, PARENT)) is None
    unknown = trial(3, {40: 2.0})
    assert gain_in(archive_of(PARENT), trial(1, {40: 1.5}, PARENT, unknown)) == 0.5, "one known parent is enough"


@pytest.mark.parametrize(("bits", "gain"), [(1.95, 0.0), (1.9, 0.0), (1.75, 0.25), (2.3, 0.0)])
def test_a_gain_within_the_noise_is_none(bits: float, gain: float) -> None:
    repeats = [trial(0, {10: 3.5, 20: 2.5, 40: 2.0 + spread}, purpose="confirm", seed=1) for spread in (0.2, -0.2)]
    archive = archive_of(PARENT, *repeats)
    assert archive.noise(40) == pytest.approx(0.2) and archive.noise(20) == 0 and archive.noise(10) > 0.25
    assert gain_in(archive, trial(1, {40: bits}, PARENT)) == gain


def test_the_noise_is_that_of_the_rung() -> None:
    archive = archive_of(PARENT, trial(0, {10: 2.0, 20: 2.5, 40: 2.0}, purpose="confirm", seed=1))
    assert gain_in(archive, trial(1, {10: 2.5}, PARENT)) == 0.0, "a gain of 0.5 where seeds differ by 1"
    assert gain_in(archive, trial(1, {10: 2.5, 20: 2.375}, PARENT)) == 0.125


def test_noise_is_pooled_over_what_was_repeated() -> None:
    archive = archive_of(PARENT, trial(1, {40: 5.0}), trial(2, {40: 7.0}))
    assert archive.noise(40) == 0, "different candidates are no repeats"
    for number, bits in ((1, 5.5), (2, 7.125), (2, 7.25)):
        archive.add(trial(number, {40: bits}, purpose="confirm", seed=1))
    squares = (0.25**2 + 0.25**2) + (0.125**2 + 0 + 0.125**2)
    assert archive.noise(40) == pytest.approx((squares / (1 + 2)) ** 0.5)
    assert archive.noise(30) == 0


# Ranking


def test_the_furthest_comes_first_then_the_best() -> None:
    ranks = [{40: 2.0}, {40: 2.1}, {20: 1.0}, {20: 1.1}, {10: 0.5}]
    trials = [trial(number, curve) for number, curve in enumerate(ranks)]
    for seed in range(10):
        shuffled = random.Random(seed).sample(trials, len(trials))
        assert archive_of(*shuffled).ranked() == trials


def test_ties_are_ranked_by_id_whatever_the_order_of_arrival() -> None:
    trials = [trial(number, {40: 2.0}) for number in range(9)]
    assert archive_of(*reversed(trials)).ranked() == trials


@pytest.mark.parametrize(
    "outcome",
    [Rejected("cost", "quadratic"), Crashed("raised", "Error"), Held("leap", "too good", fitness(0.1))],
    ids=outcome_kind,
)
def test_what_was_not_trained_is_not_kept(outcome: Outcome) -> None:
    archive = archive_of(replace(PARENT, outcome=outcome))
    assert archive.ranked() == [] and archive.noise(40) == 0
    assert archive.possible_parents() == []


def test_a_confirmation_changes_no_rank() -> None:
    lucky = trial(0, {40: 0.5}, purpose="confirm", seed=1)
    assert archive_of(PARENT, lucky).ranked() == [PARENT]
    assert archive_of(lucky).ranked() == []


def test_a_curve_has_every_rung() -> None:
    assert curve_of(PARENT) == {10: 3.0, 20: 2.5, 40: 2.0}


def test_what_is_trained_for_comparison_alone_is_nobodys_parent() -> None:
    outside = trial(0, {40: 0.5}, purpose="baseline")
    archive = archive_of(outside, only := trial(1, {40: 2.0}), outside=(outside.candidate.id,))
    assert archive.ranked() == [outside, only] and archive.possible_parents() == [only]
    assert archive.best("baseline") == outside and archive.best("search") == only and archive.best("confirm") is None


def test_a_trial_that_is_told_anew_is_ranked_once() -> None:
    archive = archive_of(PARENT, trial(1, {40: 1.0}))
    archive.add(better := trial(0, {40: 0.5}, purpose="baseline"))
    assert archive.ranked() == [better, trial(1, {40: 1.0})]
