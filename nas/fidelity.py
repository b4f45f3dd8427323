"""Does an early rung tell what the last one will say? A running audit of the rungs (Spearman 1904).

A benchmark whose small scale ranks at random makes a search of noise: ASI-Arch's correlated at -0.05 with the larger
scale. So the rank correlation of each earlier rung with the last is kept with its confidence interval, over the trials
that reached both, one for each architecture; baselines are among them, which are never stopped.

The interval is Fisher's z with the standard error of Bonett and Wright (2000, https://doi.org/10.1007/BF02294183),
sqrt((1 + rho^2 / 2) / (n - 3)): with a dozen trials it covers what it says for rank correlations, where a bootstrap
resamples ties into its ranks and comes out too narrow, and it draws no random numbers, so a replay finds the same.

Only what survives a rung reaches the last: the range is restricted, and the correlation among survivors is below that
among all (Thorndike 1949). So a low one is doubted only when its whole interval is low, and the number that did not
survive is told beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, correlation
from typing import Any

from nas.types import Fitness, Trial

_LEAST = 4  # trials for an interval: its standard error has n - 3 in it
_RUNNING = 256  # trials that it looks back on: a search changes, and a long one must not slow down


@dataclass(frozen=True)
class Fidelity:
    """How well one rung ranks as the last one does.

    Attributes:
      step, last: optimizer steps of the rung and of the last.
      correlation: Spearman's rho, with its 95% interval from `low` to `high`.
      trials: that reached both.
      reached: that reached the rung.
    """

    step: int
    last: int
    correlation: float
    low: float
    high: float
    trials: int
    reached: int

    def __str__(self) -> str:
        return (
            f"step {self.step} against step {self.last}: rank correlation {self.correlation:+.2f} "
            f"[{self.low:+.2f}, {self.high:+.2f}] over {self.trials} of the {self.reached} trials that reached it"
        )


class Audit:
    """Keeps the curves of the last trained trials, and which rungs are in doubt.

    Args:
      rungs: optimizer steps, the last of them the full budget.
      bound: a rung whose interval lies wholly under it does not carry over,
      least: if it is over so many trials.
    """

    def __init__(self, rungs: Sequence[int], bound: float, least: int):
        *self._early, self._last = rungs
        self._bound = bound
        self._least = max(least, _LEAST)
        self._curves: dict[str, Mapping[int, float]] = {}  # candidate id -> step -> bits per byte
        self._found: dict[int, Fidelity] = {}
        self._doubted: set[int] = set()

    def take(self, trial: Trial) -> None:
        """Takes in a trained candidate or baseline; repeats at other seeds would count one architecture twice."""
        if not isinstance(trial.outcome, Fitness) or trial.purpose not in ("baseline", "search"):
            return
        self._curves.pop(trial.candidate.id, None)
        while len(self._curves) >= _RUNNING:
            del self._curves[next(iter(self._curves))]
        self._curves[trial.candidate.id] = {rung.step: rung.bits_per_byte for rung in trial.rungs}
        self._found = {step: found for step in self._early if (found := self._fidelity(step))}

    def _fidelity(self, step: int) -> Fidelity | None:
        reached = [curve for curve in self._curves.values() if step in curve]
        pairs = [(curve[step], curve[self._last]) for curve in reached if self._last in curve]
        if (rho := spearman(pairs)) is None or len(pairs) < _LEAST:
            return None
        return Fidelity(step, self._last, rho, *interval(rho, len(pairs)), len(pairs), len(reached))

    def found(self) -> list[Fidelity]:
        """Of each rung before the last of which there is something to say, in order."""
        return list(self._found.values())

    def failing(self) -> list[Fidelity]:
        """The rungs that do not carry over."""
        return [found for found in self._found.values() if self._fails(found)]

    def _fails(self, found: Fidelity) -> bool:
        return found.trials >= self._least and found.high < self._bound

    def doubt(self, step: int) -> None:
        """A person was told that this rung does not carry over: from now on it is weighted."""
        self._doubted.add(step)

    def doubted(self, step: int) -> bool:
        return step in self._doubted

    def weight(self, step: int) -> float:
        """What a gain measured at this step counts: max(0, rho) while the rung is in doubt and fails, else 1."""
        found = self._found.get(step)
        return max(0.0, found.correlation) if found and step in self._doubted and self._fails(found) else 1.0

    def to_json(self) -> dict[str, Any]:
        """Step -> {"correlation", "low", "high", "trials", "reached", "weight"}."""
        names = ("correlation", "low", "high", "trials", "reached")
        return {
            str(step): {**{name: getattr(found, name) for name in names}, "weight": self.weight(step)}
            for step, found in self._found.items()
        }


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation of the ranks, ties at their mean rank; None where one side does not vary.

    As `scipy.stats.spearmanr`, which takes half a second to import in a process that needs nothing else of it.
    """
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return max(-1.0, min(1.0, correlation(ranks(first), ranks(second))))


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values have the mean of their ranks."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def interval(rho: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Fisher's z with Bonett and Wright's standard error; (-1, 1) for fewer than four trials.

    At rho = 1 and -1 z is infinite and the interval would be a point. It is taken half a step inside: the next rank
    correlation that n trials can have is 12 / (n (n^2 - 1)) away.
    """
    if trials < _LEAST:
        return -1.0, 1.0
    inside = 1 - 6 / (trials * (trials**2 - 1))
    z = math.atanh(max(-inside, min(inside, rho)))
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt((1 + rho**2 / 2) / (trials - 3))
    return min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half))
