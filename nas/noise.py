"""How far bits per byte depend on the training seed, which fixes initial parameters and data order.

Measured at the start of a search from several baselines at several seeds, each seed the same for all of them. So the
scores of one rung are a table of architectures by seeds, and its analysis of variance (Fisher 1925) gives two figures:

- of one score: the variance within an architecture, pooled over them;
- of a difference at the same seed, which is what a gain is: twice the variance that is left when the seed's own effect
  on all architectures is taken out.

They are two figures since runs that share a seed share their batches, and part of their luck. How much was measured
on 15 architectures with 3 seeds each (`results/baselines.json`, 256 steps): one score has a standard deviation of
0.0238, the seed's own effect is 21% of its variance (95% interval 1% to 93%, p = 0.015), and a difference at the same
seed has 0.0299: 1.26 times that of a score, where independent seeds would give 1.41. So pairing helps, by less than one
would hope, and neither figure follows from the other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[str, Mapping[int, float]]  # architecture -> training seed -> bits per byte


@dataclass(frozen=True)
class Estimate:
    """A variance in squared bits per byte, and the degrees of freedom that it was estimated with.

    Raises:
      ValueError: if it is no variance, or rests on nothing.
    """

    variance: float
    freedom: float

    def __post_init__(self) -> None:
        for name, value in (("variance", self.variance), ("freedom", self.freedom)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"a noise's {name} is {value!r}")
        if self.freedom <= 0:
            raise ValueError("a noise has no degrees of freedom")

    @property
    def deviation(self) -> float:
        """Standard deviation in bits per byte."""
        return math.sqrt(self.variance)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of the standard deviation, by the chi-squared distribution of a normal's variance."""
        from scipy import stats  # half a second to import: only who shows an interval needs it

        low, high = (float(stats.chi2.ppf(q, self.freedom)) for q in ((1 + level) / 2, (1 - level) / 2))
        squares = self.variance * self.freedom
        return math.sqrt(squares / low), math.sqrt(squares / high) if high > 0 else math.inf

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.deviation:.4f} [{low:.4f}, {high:.4f}]"


@dataclass(frozen=True)
class Noise:
    """The noise at each rung.

    Attributes:
      score: optimizer step -> of one score over training seeds.
      difference: optimizer step -> of the difference of two architectures at the same seed.
    """

    score: Mapping[int, Estimate] = field(default_factory=dict)
    difference: Mapping[int, Estimate] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.score)


def measured(tables: Mapping[int, Table]) -> Noise:
    """The noise of each step of which there is a table with repeats; empty if there is none."""
    score, difference = {}, {}
    for step, table in sorted(tables.items()):
        if estimates := analysis_of_variance(table):
            score[step], difference[step] = estimates
    return Noise(score, difference)


def analysis_of_variance(table: Table) -> tuple[Estimate, Estimate] | None:
    """(of one score, of a difference at the same seed); None if nothing was repeated.

    With n architectures at the same k seeds, mean squares M of the seeds (k - 1 degrees of freedom) and R of what is
    left beside architecture and seed ((n - 1)(k - 1)): a score's variance is (M + (n - 1) R) / n, the pooled one, and a
    difference's is 2 R. Where seeds move all architectures together the n repeats of a seed tell less than n seeds of
    their own would, so a score's degrees of freedom are Satterthwaite's (1946), between k - 1 and n (k - 1).

    Architectures that lack a seed, because a training failed, are left out. With one architecture left nothing tells
    the seed's own effect: then a difference is taken to have twice the variance of a score.
    """
    seeds = sorted({seed for by_seed in table.values() for seed in by_seed})
    rows = [[by_seed[seed] for seed in seeds] for by_seed in table.values() if len(by_seed) == len(seeds)]
    if len(seeds) < 2 or not rows:
        return _pooled(table)
    n, k = len(rows), len(seeds)
    deviations = [[value - sum(row) / k for value in row] for row in rows]
    effects = [sum(column) / n for column in zip(*deviations, strict=True)]
    of_seeds = n * sum(effect**2 for effect in effects) / (k - 1)
    if n == 1:
        return _unpaired(of_seeds, k - 1)
    rest = sum((value - e) ** 2 for row in deviations for value, e in zip(row, effects, strict=True))
    of_rest = rest / ((n - 1) * (k - 1))
    shares = (of_seeds / n, (n - 1) * of_rest / n)
    variance = sum(shares)
    denominator = shares[0] ** 2 / (k - 1) + shares[1] ** 2 / ((n - 1) * (k - 1))
    freedom = variance**2 / denominator if denominator > 0 else float(n * (k - 1))
    return Estimate(variance, freedom), Estimate(2 * of_rest, (n - 1) * (k - 1))


def _pooled(table: Table) -> tuple[Estimate, Estimate] | None:
    """Where no architecture has all seeds: pooled within each, as if no two shared a seed."""
    groups = [list(by_seed.values()) for by_seed in table.values() if len(by_seed) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((value - sum(group) / len(group)) ** 2 for group in groups for value in group)
    return _unpaired(squares / freedom, freedom) if freedom else None


def _unpaired(variance: float, freedom: int) -> tuple[Estimate, Estimate]:
    return Estimate(variance, freedom), Estimate(2 * variance, freedom)


def noise_to_json(noise: Noise) -> dict[str, Any]:
    """Both kinds as step -> {"deviation", "variance", "freedom"}; the deviation is for people."""

    def values(estimates: Mapping[int, Estimate]) -> dict[str, Any]:
        return {
            str(step): {"deviation": e.deviation, "variance": e.variance, "freedom": e.freedom}
            for step, e in estimates.items()
        }

    return {"score": values(noise.score), "difference": values(noise.difference)}


def noise_from_json(record: Mapping[str, Any], steps: Sequence[int] = ()) -> Noise:
    """The inverse of `noise_to_json`.

    Args:
      steps: those that it has to have.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: if the record is damaged, or lacks one.
    """

    def estimates(values: Mapping[str, Any]) -> dict[int, Estimate]:
        return {int(step): Estimate(value["variance"], value["freedom"]) for step, value in values.items()}

    noise = Noise(estimates(record["score"]), estimates(record["difference"]))
    for step in steps:
        _ = noise.score[step], noise.difference[step]
    return noise
