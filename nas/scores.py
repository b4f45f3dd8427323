"""Each trial's score, as the search's fitness makes it of what is known by now.

A score can depend on the reference baseline, on the spread of the baselines and on a judge's opinion, which all come
in their own time. So scores are made anew when one of them comes. The journal has the score at the time of telling;
a replay takes in the same events in the same order, and so finds the same scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.fitness import FITNESS, Measures, judged
from nas.settings import Settings
from nas.types import Candidate, Certificate, Crashed, Fitness, Outcome, Trial

_BEST_OPINION = 10  # of each of the judge's two marks, from 1
_ONE_OF_EACH = Measures(0.0, 1.0, 1.0, 1.0, 1.0)


class Scores:
    """Makes the scores of one search.

    Args:
      baselines: in the order in which one takes another's place as the reference, if that could not be trained.
    """

    def __init__(self, settings: Settings, baselines: Sequence[Candidate]):
        self._settings = settings.fitness
        self._score = FITNESS[settings.fitness.kind]
        self._stateless = stateless_bytes(settings)
        self._order = {candidate.id: place for place, candidate in enumerate(baselines)}
        self._baselines: dict[str, Fitness] = {}  # candidate id -> what the full budget made of it
        self._certificates: dict[str, Certificate] = {}
        self._candidates: dict[str, str] = {}  # work -> id of the candidate that came of it
        self._opinions: dict[str, float] = {}  # work -> the judge's, in [0, 1]

    @property
    def fixed(self) -> bool:
        """Whether a score depends on its own trial's bits per byte alone."""
        return self._settings.kind == "bits_per_byte" and not self._settings.judge

    def heed(self, event: Mapping[str, Any]) -> bool:
        """Takes in an event of the journal; whether scores change by it."""
        work = event.get("work")
        if event["event"] == "ask" and work:
            self._candidates[work] = event["candidate"]["id"]
            return work in self._opinions
        if event["event"] == "opinion":
            self._opinions[event["work"]] = (event["novelty"] + event["simplicity"] - 2) / (2 * (_BEST_OPINION - 1))
            return event["work"] in self._candidates
        return False

    def take(self, trial: Trial) -> bool:
        """Takes in a trial that has ended; whether the scores of others change by it."""
        if trial.certificate:
            self._certificates[trial.candidate.id] = trial.certificate
        if trial.purpose != "baseline" or not isinstance(trial.outcome, Fitness):
            return False
        self._baselines[trial.candidate.id] = trial.outcome
        return not self.fixed

    def scored(self, trial: Trial) -> Trial:
        """`trial` with its score; crashed if that is not finite."""
        if self.fixed or not isinstance(trial.outcome, Fitness):
            return trial
        own = self._unjudged(trial.candidate.id, trial.outcome)
        score = judged(own, self._opinion(trial.candidate.id), self._spread(), self._settings.judge)
        return replace(trial, outcome=_with_score(trial.outcome, score))

    def _opinion(self, candidate: str) -> float | None:
        works = (work for work, name in self._candidates.items() if name == candidate and work in self._opinions)
        return next((self._opinions[work] for work in works), None)

    def _unjudged(self, candidate: str, fitness: Fitness) -> float:
        return self._score(self._measures(candidate, fitness), self._reference(), self._settings)

    def _reference(self) -> Measures:
        """The first trained baseline; which one it is shifts all scores alike, and so does that there is none yet."""
        first = min(self._baselines, key=lambda name: self._order.get(name, len(self._order)), default=None)
        return _ONE_OF_EACH if first is None else self._measures(first, self._baselines[first])

    def _measures(self, candidate: str, fitness: Fitness) -> Measures:
        certificate = self._certificates.get(candidate)
        return Measures(
            fitness.bits_per_byte,
            fitness.tokens_per_second,
            fitness.peak_bytes,
            fitness.flops_per_token,
            state_bytes(certificate, self._stateless),
            fitness.probes,
        )

    def _spread(self) -> float:
        scores = [self._unjudged(name, fitness) for name, fitness in self._baselines.items()]
        return max(scores) - min(scores) if scores else 0.0


def stateless_bytes(settings: Settings) -> int:
    """What an architecture without a decoding state of fixed size has to keep: all its inputs, in float32."""
    return 4 * settings.train.time * settings.model.width


def state_bytes(certificate: Certificate | None, stateless: int) -> int:
    """Bytes that one mixer keeps between tokens, at batch 1."""
    known = certificate.state_bytes if certificate else None
    return stateless if known is None else known


def _with_score(fitness: Fitness, score: float) -> Outcome:
    try:
        return replace(fitness, score=score)
    except ValueError as error:
        return Crashed("diverged", f"a measurement can't be a score: {error}")
