"""What rules say of each proposal that was tried: whether it did what was predicted, and better than its kin."""

from collections import deque

from nas import lessons
from nas.archive import Archive
from nas.journal import Event
from nas.space import SearchSpace
from nas.types import Trial

_SIBLINGS = 20  # that a trial is compared with


class Analyses:
    """Remembers the last children of each parent by each operator.

    Args:
      steps: optimizer steps of a trial's full budget, at which the noise is taken.
    """

    def __init__(self, space: SearchSpace, archive: Archive, steps: int):
        self._space = space
        self._archive = archive
        self._steps = steps
        self._siblings: dict[tuple[str, str], deque[Trial]] = {}  # by (parent, operator)

    def of(self, trial: Trial, gain: float | None) -> Event | None:
        """The analysis event of a proposal's trial; None for a trial beside the proposals, or that never ran."""
        if trial.purpose != "search" or not trial.cost.total_seconds:
            return None
        candidate = trial.candidate
        parents = [known for parent in candidate.parents if (known := self._archive.trial_of(parent))]
        kin = (parents[0].candidate.id if parents else "", candidate.operator)
        siblings = self._siblings.setdefault(kin, deque(maxlen=_SIBLINGS))
        before = self._space.describe(parents[0].candidate.source) if parents else {}
        change = lessons.change_of(before, self._space.describe(candidate.source), candidate.operator)
        noise = self._archive.noise_of_difference(self._steps)
        said = lessons.analyse(trial, parents, list(siblings), gain, noise, change)
        siblings.append(trial)
        return {"event": "analysis", **said}
