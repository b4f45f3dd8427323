"""Everything that was trained: ranks, learning curves, the noise, and what a child gained over its parent."""

import bisect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nas.noise import Noise
from nas.statistics import pooled_deviation
from nas.types import Fitness, Trial

Curve = Mapping[int, float]


@dataclass(frozen=True)
class Gain:
    """Bits per byte gained over the better parent, and the optimizer step at which both were measured."""

    bits_per_byte: float
    step: int


class Archive:
    """Trained candidates with their learning curves, best first; the noise of a curve.

    Args:
      outside: ids of candidates that are trained for comparison alone: they are nobody's parents.
    """

    def __init__(self, outside: Collection[str] = ()):
        self._outside = frozenset(outside)
        self._ranked: list[Trial] = []
        self._trials: dict[str, Trial] = {}  # candidate id -> its trial at the search's training seed
        self._repeats: dict[str, list[Curve]] = {}  # candidate id -> curves at every seed
        self._noise = Noise()  # as it was measured at the start of the search

    def settle(self, noise: Noise) -> None:
        """Takes in the noise as the search has measured it: repeats that come later do not change it."""
        self._noise = noise

    def rescore(self, scored: Callable[[Trial], Trial]) -> None:
        """Ranks anew, by the scores that `scored` gives; what comes back without one keeps the one it had."""
        for name, trial in self._trials.items():
            if isinstance((new := scored(trial)).outcome, Fitness):
                self._trials[name] = new
        self._ranked = sorted(self._trials.values(), key=rank_key)

    def add(self, trial: Trial) -> None:
        """Keeps a trained trial; others have nothing to keep, and what is held must be nobody's parent.

        Repeats of a candidate tell the noise; a guest's curve, which was measured elsewhere, is no repeat.
        """
        if not isinstance(trial.outcome, Fitness):
            return
        if trial.purpose != "guest":
            self._repeats.setdefault(trial.candidate.id, []).append(curve_of(trial))
        if trial.purpose != "confirm":
            if old := self._trials.get(trial.candidate.id):
                self._ranked.remove(old)
            self._trials[trial.candidate.id] = trial
            bisect.insort(self._ranked, trial, key=rank_key)

    def ranked(self) -> list[Trial]:
        """Best first. One that the scheduler let go further outranks one it stopped."""
        return list(self._ranked)

    def best(self, purpose: str) -> Trial | None:
        """The best of this purpose; None if there is none."""
        return next((trial for trial in self._ranked if trial.purpose == purpose), None)

    def possible_parents(self) -> list[Trial]:
        """Those that a child can be made of, best first."""
        return [trial for trial in self._ranked if trial.candidate.id not in self._outside]

    def has_parents(self) -> bool:
        """Whether there is anything that a child can be made of."""
        return any(trial.candidate.id not in self._outside for trial in self._ranked)

    def trial_of(self, candidate_id: str) -> Trial | None:
        """The trial at the search's training seed by which a candidate is known; None if it was never trained."""
        return self._trials.get(candidate_id)

    def noise(self, step: int) -> float:
        """Standard deviation of bits per byte at `step` over training seeds; 0 while nothing was repeated.

        As it was settled at the start; where it was not, pooled over whatever was repeated so far.
        """
        if step in self._noise.score:
            return self._noise.score[step].deviation
        return pooled_deviation(
            [[curve[step] for curve in curves if step in curve] for curves in self._repeats.values()]
        )

    def noise_of_difference(self, step: int) -> float:
        """Standard deviation of the difference of two candidates at `step` and at one seed, as a gain is measured.

        Where it was not settled, that of one score: a pair that shares its seed differs by less than one would think.
        """
        settled = self._noise.difference.get(step)
        return self.noise(step) if settled is None else settled.deviation

    def settled_noise(self, step: int | None = None) -> float:
        """The unit that gains at `step` are counted in (at the last rung if None); 0 where it was not measured."""
        steps = self._noise.difference
        last = max(steps, default=0) if step is None else step
        return steps[last].deviation if last in steps else 0.0

    def gain(self, child: Trial) -> Gain | None:
        """What a child gained over its best parent, at the last rung that both reached.

        None if it has no parent in the archive or no rung in common. 0 for a loss, and for a gain within one standard
        deviation of the noise: that of a difference, since both were trained with the search's own seed, on the same
        batches in the same order.
        """
        curve = curve_of(child)
        gains = []
        for parent in child.candidate.parents:
            if parent not in self._trials:
                continue
            parent_curve = curve_of(self._trials[parent])
            if shared := curve.keys() & parent_curve.keys():
                step = max(shared)
                gains.append((parent_curve[step] - curve[step], step))
        if not gains:
            return None
        gain, step = min(gains)
        return Gain(gain if gain > self.noise_of_difference(step) else 0.0, step)


def curve_of(trial: Trial) -> dict[int, float]:
    """Optimizer step -> validation bits per byte."""
    return {rung.step: rung.bits_per_byte for rung in trial.rungs}


def rank_key(trial: Trial) -> tuple[int, float, str]:
    """Sorts the best first: the furthest rung, then the score; the id makes ties the same in every run."""
    assert isinstance(trial.outcome, Fitness)
    return (-trial.outcome.step, -trial.outcome.score, trial.id)
