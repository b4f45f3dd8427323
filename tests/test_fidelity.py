"""Whether early rungs tell what the last one says: the correlation, its interval, and when a rung is in doubt."""

import numpy as np
import pytest
from fakes import fitness
from scipy import stats

from nas.fidelity import Audit, interval, ranks, spearman
from nas.types import Budget, Candidate, Cost, Crashed, Outcome, Rung, Trial


def trial(number: int, curve: dict[int, float], purpose: str = "search", outcome: Outcome | None = None) -> Trial:
    rungs = tuple(Rung(step, bits) for step, bits in curve.items())
    step = max(curve)
    return Trial(
        f"t{number}",
        Candidate(f"x = {number}\n", "decay"),
        purpose,
        Budget(40),
        outcome or fitness(curve[step], step),
        Cost(),
        rungs,
    )


def audit_of(pairs: list[tuple[float, float]], bound: float = 0.3, least: int = 8) -> Audit:
    audit = Audit((10, 40), bound, least)
    for number, (early, late) in enumerate(pairs):
        audit.take(trial(number, {10: early, 40: late}))
    return audit


UP = [(float(x), float(x * x)) for x in range(12)]
DOWN = [(float(x), -float(x)) for x in range(12)]
NONE = [(float(x), float(y)) for x, y in enumerate((5, 11, 0, 8, 2, 10, 1, 7, 4, 9, 3, 6))]


@pytest.mark.parametrize("seed", range(20))
def test_it_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4 if seed % 2 else 10**6, (9, 2)).astype(float)  # with ties, and without
    expected = stats.spearmanr(values[:, 0], values[:, 1]).statistic
    assert spearman([(a, b) for a, b in values]) == pytest.approx(expected)
    assert ranks([a for a, _ in values]) == stats.rankdata(values[:, 0]).tolist()


@pytest.mark.parametrize(("pairs", "rho"), [(UP, 1.0), (DOWN, -1.0)])
def test_what_was_planted_is_found(pairs: list[tuple[float, float]], rho: float) -> None:
    (found,) = audit_of(pairs).found()
    assert found.correlation == pytest.approx(rho) and (found.trials, found.reached) == (12, 12)
    assert found.low <= found.correlation <= found.high and found.high - found.low < 0.5


def test_no_correlation_has_an_interval_around_nought() -> None:
    (found,) = audit_of(NONE).found()
    assert abs(found.correlation) < 0.2 and found.low < 0 < found.high and found.high > 0.3


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_interval_holds_what_it_says(rho: float) -> None:
    """For normal values, whose rank correlation is 6/pi asin(rho/2)."""
    rng, true, hits = np.random.default_rng(0), 6 / np.pi * np.arcsin(rho / 2), 0
    for _ in range(1000):
        x = rng.normal(size=15)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=15)
        found = spearman(list(zip(x.tolist(), y.tolist(), strict=True)))
        assert found is not None
        low, high = interval(found, 15)
        hits += low <= true <= high
    assert hits / 1000 > 0.92


@pytest.mark.parametrize("trials", range(4))
def test_too_few_trials_say_nothing(trials: int) -> None:
    audit = audit_of(DOWN[:trials])
    assert audit.found() == [] and audit.failing() == [] and interval(0.5, trials) == (-1.0, 1.0)


def test_a_rung_that_does_not_vary_says_nothing() -> None:
    assert audit_of([(2.0, float(x)) for x in range(12)]).found() == []


@pytest.mark.parametrize(
    ("pairs", "fails"), [(UP, False), (NONE, False), (DOWN, True), (DOWN[:8], True), (DOWN[:7], False)]
)
def test_a_rung_fails_when_its_whole_interval_is_low_over_enough_trials(
    pairs: list[tuple[float, float]], fails: bool
) -> None:
    audit = audit_of(pairs)
    assert bool(audit.failing()) == fails and audit.weight(10) == 1, "nobody was told yet"
    audit.doubt(10)
    assert audit.weight(10) == (0.0 if fails else 1.0) and audit.weight(40) == 1


def test_a_weak_correlation_leaves_its_weight_and_a_better_one_all() -> None:
    audit = audit_of(NONE, bound=0.9)
    audit.doubt(10)
    (found,) = audit.failing()
    assert audit.weight(10) == pytest.approx(max(0.0, found.correlation))
    for number, (early, late) in enumerate([(float(x), float(x)) for x in range(20, 80)]):
        audit.take(trial(100 + number, {10: early, 40: late}))
    assert audit.failing() == [] and audit.weight(10) == 1


def test_who_counts_is_each_trained_architecture_once() -> None:
    audit = audit_of(UP)
    (before,) = audit.found()
    audit.take(trial(0, {10: 99.0, 40: 0.0}, purpose="confirm"))
    audit.take(trial(50, {10: 99.0, 40: 0.0}, outcome=Crashed("diverged", "no score")))
    assert audit.found() == [before]
    audit.take(trial(51, {10: 99.0}))
    (after,) = audit.found()
    assert (after.trials, after.reached) == (12, 13), "it reached the rung and no further"
    audit.take(trial(52, {10: 5.5, 40: 5.5}, purpose="baseline"))
    assert audit.found()[0].trials == 13


def test_one_rung_has_nothing_to_be_held_against() -> None:
    audit = Audit((40,), 0.3, 8)
    for number in range(9):
        audit.take(trial(number, {40: float(number)}))
    assert audit.found() == [] and audit.to_json() == {}
