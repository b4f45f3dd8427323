"""Estimates with their uncertainty. Thin over SciPy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; `low` and `high` are infinite where one sample allows none."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{self.mean:+.4f} (n={self.count}, no interval)"
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] (n={self.count})"


def mean_interval(samples: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean.

    Raises:
      ValueError: without samples.
    """
    if not samples:
        raise ValueError("no samples")
    count = len(samples)
    mean = sum(samples) / count
    if count == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    from scipy import stats  # half a second to import, and most searches end before they need it

    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * standard_deviation(samples) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def standard_deviation(samples: Sequence[float]) -> float:
    """Sample standard deviation (n - 1); 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    mean = sum(samples) / len(samples)
    return math.sqrt(sum((sample - mean) ** 2 for sample in samples) / (len(samples) - 1))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation within groups, pooled over groups of two or more; 0 if there are none."""
    squares = sum((len(group) - 1) * standard_deviation(group) ** 2 for group in groups if len(group) > 1)
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    return math.sqrt(squares / freedom) if freedom else 0.0
