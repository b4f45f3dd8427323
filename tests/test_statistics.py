"""Estimates against their definitions."""

import math
import random
import statistics

import pytest
from scipy import stats

from nas.statistics import Interval, mean_interval, pooled_deviation, standard_deviation

_RNG = random.Random(0)
SAMPLES = [[_RNG.gauss(2, 10.0**-size) for _ in range(size)] for size in range(2, 10)]


@pytest.mark.parametrize("samples", SAMPLES, ids=len)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_is_students(samples: list[float], level: float) -> None:
    low, high = stats.t.interval(level, len(samples) - 1, statistics.mean(samples), stats.sem(samples))
    interval = mean_interval(samples, level)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)
    assert interval.low < interval.mean < interval.high and interval.count == len(samples)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(0)
    intervals = [mean_interval([rng.gauss(1, 3) for _ in range(4)]) for _ in range(2000)]
    assert sum(i.low < 1 < i.high for i in intervals) / len(intervals) == pytest.approx(0.95, abs=0.015)


def test_one_sample_allows_no_interval() -> None:
    assert mean_interval([0.25]) == Interval(0.25, -math.inf, math.inf, 1)
    assert str(mean_interval([0.25])) == "+0.2500 (n=1, no interval)"


def test_equal_samples_have_no_width() -> None:
    assert mean_interval([0.25] * 3) == Interval(0.25, 0.25, 0.25, 3)


def test_an_interval_reads_as_a_sentence_part() -> None:
    assert str(Interval(-0.01234, -0.02, 0.0, 3)) == "-0.0123 [-0.0200, +0.0000] (n=3)"


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        mean_interval([])


@pytest.mark.parametrize("samples", SAMPLES, ids=len)
def test_the_deviation_is_that_of_a_sample(samples: list[float]) -> None:
    assert standard_deviation(samples) == pytest.approx(statistics.stdev(samples))
    assert pooled_deviation([samples]) == pytest.approx(statistics.stdev(samples))


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, 1.0]], ids=len)
def test_what_does_not_vary_has_no_deviation(samples: list[float]) -> None:
    assert standard_deviation(samples) == 0 == pooled_deviation([samples, []])


def test_pooling_weighs_by_freedom_and_ignores_the_level_of_a_group() -> None:
    groups = [[1.0, 3.0], [100.0, 101.0, 102.0], [7.0], []]
    assert pooled_deviation(groups) == pytest.approx(math.sqrt((2.0 + 2.0) / (1 + 2)))
    assert pooled_deviation([]) == 0
