"""Policies compared on a log: against what they really earn, where that is known."""

import random
from collections.abc import Mapping

import pytest

from nas.meta import make_policy
from nas.meta.offline import Decision, estimates
from nas.settings import MetaSettings

MEANS = {"a": 0.1, "b": 0.5, "c": 0.2}


def log(weights: Mapping[str, float], count: int, seed: int) -> list[Decision]:
    """Logged choices by fixed probabilities."""
    rng = random.Random(seed)
    chosen = rng.choices(list(weights), list(weights.values()), k=count)
    return [Decision(weights, arm, MEANS[arm] * 2 * rng.random(), {}) for arm in chosen]


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"b": 1.0}, {"a": 1.0, "b": 2.0, "c": 1.0}])
def test_every_estimate_is_right_on_the_average(weights: dict[str, float]) -> None:
    total = sum(weights.values())
    truth = sum(MEANS[arm] * weight / total for arm, weight in weights.items())
    settings = MetaSettings("fixed", weights={arm: weights.get(arm, 0.0) for arm in MEANS})
    found = [
        estimates(log({"a": 0.5, "b": 0.2, "c": 0.3}, 400, seed), make_policy(settings, list(MEANS)))
        for seed in range(60)
    ]
    for name in ("propensity", "doubly_robust"):
        means = [getattr(one, name).mean for one in found]
        assert sum(means) / len(means) == pytest.approx(truth, abs=0.02), name
        covered = sum(getattr(one, name).low <= truth <= getattr(one, name).high for one in found)
        assert covered >= 0.85 * len(found), name
    assert sum(one.self_normalised for one in found) / len(found) == pytest.approx(truth, abs=0.02)


def test_the_model_makes_the_doubly_robust_estimate_the_firmer_one() -> None:
    settings = MetaSettings("fixed", weights={"a": 0.0, "b": 1.0, "c": 0.0})
    found = estimates(log({"a": 0.6, "b": 0.1, "c": 0.3}, 500, 0), make_policy(settings, list(MEANS)))
    widths = [one.high - one.low for one in (found.doubly_robust, found.propensity)]
    assert widths[0] < 0.8 * widths[1]


def test_the_policy_that_was_used_is_estimated_at_what_it_earned() -> None:
    decisions = log({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 300, 1)
    found = estimates(decisions, make_policy(MetaSettings("uniform"), list(MEANS)))
    assert found.propensity == found.logged and found.overlap == pytest.approx(1)
    assert found.self_normalised == pytest.approx(found.logged.mean)


def test_a_better_policy_shows_and_learns_from_the_log() -> None:
    decisions = log({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 600, 2)
    found = estimates(decisions, make_policy(MetaSettings(), list(MEANS)))
    assert found.doubly_robust.low > found.logged.mean


def test_without_choices_or_with_impossible_ones_there_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="no choices"):
        estimates([], make_policy(MetaSettings(), ["a"]))
    with pytest.raises(ValueError, match="a was chosen with probability 0"):
        estimates([Decision({"a": 0.0, "b": 1.0}, "a", 1.0, {})], make_policy(MetaSettings(), ["a", "b"]))
