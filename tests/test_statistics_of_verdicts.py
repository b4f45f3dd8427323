"""How wide the intervals must be: their coverage at few seeds, and what the corrections promise, by simulation."""

import math

import numpy as np
import pytest

from nas.statistics import (
    benjamini_hochberg,
    hierarchical_bootstrap,
    holm,
    mean_interval,
    mean_over_seeds_and_text,
)

# Standard deviations of a paired difference, measured: Gated DeltaNet against Mamba2 at the default size, six seeds,
# 256 windows of the test split; of the seed, of the window, and of the rest, in bits per byte.
SEED, WINDOW, REST = 0.026, 0.033, 0.078
WINDOWS, GROUPS = 256, 16  # means of groups of windows stand for them here: the same variances, and faster
REPETITIONS = 400


def drawn(rng: np.random.Generator, seeds: int, windows: int = WINDOWS, mean: float = 0.0) -> list[list[float]]:
    """Paired differences [seeds][groups of windows] with a true mean."""
    of_group = math.sqrt(windows / GROUPS)
    of_seed, of_text = rng.normal(0, SEED, (seeds, 1)), rng.normal(0, WINDOW / of_group, (1, GROUPS))
    rest = rng.normal(0, REST / of_group, (seeds, GROUPS))
    values: list[list[float]] = (mean + of_seed + of_text + rest).tolist()
    return values


def coverage(seeds: int, windows: int, repetitions: int = REPETITIONS) -> dict[str, float]:
    """Rule -> share of its 95% intervals that have the true mean, 0.02, in them."""
    rng = np.random.default_rng(seeds)
    held = {"over seeds": 0, "seeds and text": 0, "bootstrap": 0}
    for number in range(repetitions):
        differences = drawn(rng, seeds, windows, mean=0.02)
        found = {
            "over seeds": mean_interval([sum(row) / len(row) for row in differences]),
            "seeds and text": mean_over_seeds_and_text(differences)[0],
            "bootstrap": hierarchical_bootstrap(differences, seed=number),
        }
        for rule, interval in found.items():
            held[rule] += interval.low <= 0.02 <= interval.high
    return {rule: count / repetitions for rule, count in held.items()}


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_the_rule_that_decides_covers_and_the_bootstrap_of_few_seeds_does_not(seeds: int) -> None:
    found = coverage(seeds, WINDOWS)
    error = 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)
    assert found["seeds and text"] >= 0.95 - error
    assert found["over seeds"] <= found["seeds and text"]
    assert found["bootstrap"] < (0.95 - error if seeds <= 5 else found["seeds and text"])


def test_differences_that_are_all_alike() -> None:
    nothing, p = mean_over_seeds_and_text([[0.0] * 4] * 3)
    assert (nothing.low, nothing.high, p) == (0.0, 0.0, 1.0)
    something, p = mean_over_seeds_and_text([[0.5] * 4] * 3)
    assert (something.mean, something.low, p) == (0.5, 0.5, 0.0)
    one, p = mean_over_seeds_and_text([[0.5, 0.2]])
    assert math.isinf(one.low) and p == 1.0


def test_with_text_that_does_not_matter_it_is_students_t() -> None:
    means = [0.1, 0.2, 0.4]
    over_both, _ = mean_over_seeds_and_text([[mean] * 8 for mean in means])
    over_seeds = mean_interval(means)
    assert over_both.low == pytest.approx(over_seeds.low) and over_both.high == pytest.approx(over_seeds.high)


def test_the_bootstrap_is_the_same_for_the_same_seed() -> None:
    differences = drawn(np.random.default_rng(0), 4)
    assert hierarchical_bootstrap(differences, seed=1) == hierarchical_bootstrap(differences, seed=1)
    interval = hierarchical_bootstrap(differences, seed=1)
    assert interval.low < interval.mean < interval.high and interval.count == 4


def test_corrections_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]) == []
