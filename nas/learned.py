"""What a search has learned, found from its journal alone: for a later search, and to judge policies.

The journal has every choice with its probabilities, and every outcome. The rest follows from these through the same
code as in the search: `Credit` is told of the same trials in the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.archive import Archive
from nas.comparisons import rung_steps
from nas.credit import Credit
from nas.fidelity import Audit
from nas.journal import Event
from nas.meta import Measured, Posterior, make_policy
from nas.meta.offline import Decision
from nas.noise import noise_from_json
from nas.predictor import Predictor
from nas.settings import Settings
from nas.space import SearchSpace
from nas.types import Candidate, Fitness, Held, Trial, candidate_from_json, trial_from_json


class Retold:
    """A journal told once more to an archive and to the credit of operators.

    Args:
      settings: those of the search.
    """

    def __init__(self, events: Sequence[Event], settings: Settings, space: SearchSpace):
        names = [operator.name for operator in space.operators]
        asked = [event["candidate"]["operator"] for event in events if event["event"] == "ask" and event["weights"]]
        self._operators = {operator.name: operator for operator in space.operators}
        self._archive = Archive({candidate.id for candidate in space.outside_references().values()})
        self._audit = Audit(rung_steps(settings), settings.search.fidelity_bound, settings.search.fidelity_trials)
        begun = next((event for event in events if event["event"] == "search"), {})
        prior = Posterior.from_json(begun["prior"]) if begun.get("prior") else None
        policy = make_policy(settings.meta, list(dict.fromkeys([*names, *asked])), prior)
        self.credit = Credit(settings.meta, space, self._archive, self._audit, policy, self._operators)
        self._space = space
        self._predictor = Predictor()
        self._asks: dict[str, Event] = {}
        self._trials: dict[str, Trial] = {}
        self.decisions = list(self._tell(events))

    def posterior(self) -> Posterior:
        return replace(self.credit.policy.posterior(), measured=self._predictor.measured())

    def _tell(self, events: Sequence[Event]) -> Iterator[Decision]:
        """The choices that came to a trial's end, in the order in which they ended."""
        for event in events:
            if event["event"] == "noise":
                self._archive.settle(noise_from_json(event))
            elif event["event"] == "notice" and event["tripwire"] == "fidelity":
                self._audit.doubt(event["step"])
            elif event["event"] == "ask":
                self._asks[event["trial"]] = event
            elif event["event"] == "ablation":
                self.credit.take_ablation(event, self._trials)
            elif event["event"] == "review" and event["decision"] == "accept":
                trial = self._trials.get(event["trial"])
                if trial and isinstance(trial.outcome, Held):
                    yield from self._take(replace(trial, outcome=trial.outcome.fitness))
            elif event["event"] == "guest":
                self._keep(trial_from_json(event))
            elif event["event"] == "trial":
                yield from self._take(trial_from_json(event))

    def _take(self, trial: Trial) -> Iterator[Decision]:
        self._trials[trial.id] = trial
        ask = self._asks.get(trial.id)
        earned = self.credit.take(trial)
        self._keep(trial)
        self._audit.take(trial)
        if ask and ask["weights"] and earned is not None:
            candidate = candidate_from_json(ask["candidate"])
            yield Decision(ask["weights"], candidate.operator, earned, self._contexts(ask["weights"], candidate))

    def _keep(self, trial: Trial) -> None:
        self._archive.add(trial)
        if trial.purpose != "confirm" and isinstance(trial.outcome, Fitness):
            parts = self._space.describe(trial.candidate.source)
            self._predictor.learn(Measured(parts, trial.outcome.step, trial.outcome.bits_per_byte))

    def _contexts(self, weights: Mapping[str, Any], candidate: Candidate) -> Mapping[str, Sequence[str]]:
        first = self._archive.trial_of(candidate.parents[0]) if candidate.parents else None
        return {name: self.credit.context(name, first.candidate if first else None) for name in weights}
