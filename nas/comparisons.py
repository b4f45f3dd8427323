"""What a search trains beside its proposals: baselines, repeats of some of them for the noise, fresh seeds at the end.

A training seed fixes initial parameters and data order, and is the same for all architectures of a comparison: so their
differences are paired, and the noise of a gain is that of a difference at one seed (`nas.noise`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from nas.archive import curve_of
from nas.errors import UserError
from nas.noise import Noise, measured
from nas.settings import Settings
from nas.space import SearchSpace
from nas.types import Candidate, Fitness, Trial

Comparison = tuple[Candidate, int, str]  # candidate, training seed, purpose


class Comparisons:
    """Which of them are due, from the trials that have ended.

    Args:
      trials: those of the search, by id; it grows.
    """

    def __init__(self, settings: Settings, space: SearchSpace, trials: Mapping[str, Trial]):
        self.baselines = baselines_of(settings, space)
        self._settings = settings.search
        self._seed = settings.train.seed
        self._trials = trials

    def first(self, noise_is_known: bool) -> Iterator[Comparison]:
        """The baselines, and then repeats of some, unless the noise is known from elsewhere."""
        yield from ((candidate, self._seed, "baseline") for candidate in self.baselines)
        if not noise_is_known:
            yield from self._repeats()

    def _repeats(self) -> Iterator[Comparison]:
        told = [trial for trial in self._trials.values() if trial.purpose == "baseline"]
        failed = {trial.candidate.id for trial in told if not isinstance(trial.outcome, Fitness)}
        repeated = [each for each in self.baselines if each.id not in failed][: self._settings.noise_baselines]
        for number in range(self._settings.noise_seeds):
            yield from ((candidate, self._seed + 1 + number, "confirm") for candidate in repeated)

    def last(self, contenders: Sequence[Trial | None]) -> Iterator[Comparison]:
        """Fresh seeds for the best candidate and the best baseline."""
        for number in range(self._settings.confirm_seeds):
            yield from ((trial.candidate, self._seed + 1 + number, "confirm") for trial in contenders if trial)

    @property
    def spared(self) -> int:
        """How many repeats need not be trained where the noise is known."""
        return self._settings.noise_seeds * min(self._settings.noise_baselines, len(self.baselines))

    def noise(self) -> Noise | None:
        """What the repeats say, once all have ended; None until then, and where there are none."""
        repeats = list(self._repeats())
        told = {
            (trial.candidate.id, trial.budget.seed): trial
            for trial in self._trials.values()
            if trial.purpose != "search"  # a proposal that copies a baseline was rejected, and is no repeat of it
        }
        due = [(candidate.id, seed) for candidate, seed, _ in self.first(noise_is_known=False)]
        if not repeats or any(key not in told for key in due):
            return None
        tables: dict[int, dict[str, dict[int, float]]] = {}
        repeated = {candidate.id for candidate, _, _ in repeats}
        for name, seed in due:
            trial = told[name, seed]
            if name in repeated and isinstance(trial.outcome, Fitness):
                for step, bits in curve_of(trial).items():
                    tables.setdefault(step, {}).setdefault(name, {})[seed] = bits
        return measured(tables)


def baselines_of(settings: Settings, space: SearchSpace) -> list[Candidate]:
    """The baselines of a search, the reference first.

    Raises:
      UserError: if the settings name one that is not there.
    """
    available = {**space.baselines(), **space.outside_references()}
    names = settings.search_space.baselines or space.starters
    if unknown := [name for name in names if name not in available]:
        raise UserError(f"search_space.baselines: no {', '.join(unknown)}; there are {', '.join(available)}")
    return [available[name] for name in sorted(names, key=lambda name: name != space.reference)]


def rung_steps(settings: Settings) -> tuple[int, ...]:
    """Optimizer steps at which a trial is measured: the first rung, then each `reduction_factor` times further."""
    steps, rungs = settings.train.steps, []
    rung: float = max(1, round(settings.scheduler.first_rung * steps))
    while math.ceil(rung) < steps:
        rungs.append(math.ceil(rung))  # the first one at or beyond the scheduler's own milestone
        rung *= settings.scheduler.reduction_factor
    return tuple(sorted({*rungs, steps}))
