"""Estimates with their uncertainty. Thin over SciPy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

_RESAMPLES = 2000


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


def share_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; `total` is at least 1."""
    from scipy import stats

    found = stats.binomtest(count, total).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def mean_over_seeds_and_text(differences: Sequence[Sequence[float]], level: float = 0.95) -> tuple[Interval, float]:
    """(interval, two-sided p of no difference) of a mean over training seeds and pieces of text, both drawn at random.

    Each seed sees the same text: a difference is `mean + seed + window + rest`. The squared standard error is that of
    the seeds' means plus that of the windows' means, which counts the rest twice and so is never too small. The degrees
    of freedom are those of the seeds, so the interval is never narrower than Student's over seeds alone: with
    Satterthwaite's (1946) a simulation found 8 false alarms in 100 at three seeds (`results/verdicts.md`).

    Args:
      differences: [seeds][windows], bits per byte.
    """
    seeds = [sum(row) / len(row) for row in differences]
    windows = [sum(column) / len(column) for column in zip(*differences, strict=True)]
    mean = sum(seeds) / len(seeds)
    if len(seeds) < 2:
        return Interval(mean, -math.inf, math.inf, 1), 1.0
    variance = sum(standard_deviation(means) ** 2 / len(means) for means in (seeds, windows))
    if variance == 0.0:
        return Interval(mean, mean, mean, len(seeds)), float(mean == 0.0)
    from scipy import stats

    error, freedom = math.sqrt(variance), len(seeds) - 1
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(mean, mean - half, mean + half, len(seeds)), float(2 * stats.t.sf(abs(mean) / error, freedom))


def hierarchical_bootstrap(differences: Sequence[Sequence[float]], seed: int, level: float = 0.95) -> Interval:
    """Percentile interval of the mean when seeds are drawn again, and then windows, the same for each of the seeds.

    SciPy's bootstrap draws along one axis. It takes the spread of few seeds for too small: see `results/verdicts.md`.

    Args:
      differences: [seeds][windows].
      seed: of the draws.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n for n in values.shape)
    means = ((rows @ values) * columns).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for how many there are, family-wise (Holm 1979): the least counts n times, the next n - 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    scaled = (min(1.0, (len(order) - rank) * p_values[index]) for rank, index in enumerate(order))
    adjusted = dict(zip(order, accumulate(scaled, max), strict=True))
    return [adjusted[index] for index in range(len(order))]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for the share of false discoveries (Benjamini and Hochberg 1995)."""
    from scipy import stats

    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []


CORRECTIONS = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}


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
