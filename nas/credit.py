"""What an operator is owed for a trial: its gain over the parent, by the noise, by what it cost, and by where it was.

The reward is the gain in bits per byte over the better parent (`Archive.gain`: none within the noise), in units of the
noise where that was measured, times what a gain at that rung has been found to carry over; with `meta.cost` it is
divided by the child's FLOPs per token over its parent's. Rejections and crashes earn nothing; what the machine failed
at, and what is held, says nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nas.archive import Archive, Gain
from nas.fidelity import Audit
from nas.meta import Policy
from nas.meta.evidence import Context
from nas.settings import MetaSettings
from nas.space import SearchSpace
from nas.types import ELSEWHERE, Candidate, Crashed, Fitness, Held, Operator, Outcome, Trial


class Credit:
    """Between a search's trials and its policy.

    Args:
      operators: name -> operator, of those that the policy chooses among.
    """

    def __init__(
        self,
        settings: MetaSettings,
        space: SearchSpace,
        archive: Archive,
        audit: Audit,
        policy: Policy,
        operators: Mapping[str, Operator],
    ):
        self._settings = settings
        self._space = space
        self._archive = archive
        self._audit = audit
        self._operators = operators
        self.policy = policy

    def probabilities(
        self,
        in_flight: Mapping[str, int],
        possible: Collection[str],
        parent: Candidate | None,
        foreseen: Mapping[str, Sequence[float]],
    ) -> dict[str, float]:
        """Operator -> probability, for a child of this parent."""
        contexts = {name: self.context(name, parent) for name in possible}
        return self.policy.probabilities(in_flight, possible, contexts, foreseen)

    def take(self, trial: Trial) -> float | None:
        """Credits the operator of a trial that ended, and returns the credit; None if the trial is no evidence.

        To be told before the archive is: what a trial gained is not measured by itself.
        """
        if trial.purpose != "search" or not _is_evidence(trial.outcome):
            return None
        gain = self.gain(trial)
        earned = self._reward(trial, gain) if gain else 0.0
        self.policy.update(trial.candidate.operator, earned, self._context_of(trial.candidate))
        return earned

    def gain(self, trial: Trial) -> Gain | None:
        """What a trial gained over its parent."""
        return self._archive.gain(trial) if isinstance(trial.outcome, Fitness) else None

    def take_ablation(self, event: Mapping[str, Any], trials: Mapping[str, Trial]) -> None:
        """What a change turned out to be worth in a verification: one more trial's credit, none within the noise."""
        operator, effect = event["operator"], event["effect"]
        if operator in self._operators:
            trial = trials.get(event.get("trial", ""))
            context = self._context_of(trial.candidate) if trial else ()
            noise = self._archive.settled_noise()
            self.policy.update(operator, effect["mean"] / (noise or 1.0) if effect["low"] > 0 else 0.0, context)

    def _reward(self, trial: Trial, gain: Gain) -> float:
        earned = self._audit.weight(gain.step) * max(gain.bits_per_byte, 0.0)
        earned /= self._archive.settled_noise(gain.step) or 1.0
        return earned / self._cost(trial) if self._settings.cost else earned

    def _cost(self, trial: Trial) -> float:
        """FLOPs per token over those of the parent that it was compared with; 1 where one of them is not known."""
        parents = [self._archive.trial_of(parent) for parent in trial.candidate.parents]
        flops = [each.outcome.flops_per_token for each in parents if each and isinstance(each.outcome, Fitness)]
        own = trial.outcome.flops_per_token if isinstance(trial.outcome, Fitness) else 0.0
        return own / min(flops) if own and flops and min(flops) else 1.0

    def _context_of(self, candidate: Candidate) -> Context:
        first = self._archive.trial_of(candidate.parents[0]) if candidate.parents else None
        return self.context(candidate.operator, first.candidate if first else None)

    def context(self, operator: str, parent: Candidate | None) -> Context:
        """What this parent is like where the operator would change it, as far as credit is learned by that."""
        if parent is None or not self._settings.contexts or operator not in self._operators:
            return ()
        return tuple(self._space.context(self._operators[operator], parent.source))


def _is_evidence(outcome: Outcome) -> bool:
    """Whether an outcome says anything for or against the operator that made the candidate."""
    lost = isinstance(outcome, Crashed) and outcome.cause in ELSEWHERE
    return not lost and not isinstance(outcome, Held)
