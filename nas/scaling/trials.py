"""What becomes of a simulated trial: its results as a worker would tell them, and how long it takes to each.

A candidate's bits per byte are a sum over its parts, so that there is something to find; a noise comes on top.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nas.execution.scheduler import DECIDED, METRIC, STEP
from nas.search import Assignment, rung_steps
from nas.settings import Settings
from nas.space import SearchSpace
from nas.trial import fitness_json
from nas.types import Certificate, Rejected, outcome_to_json

REJECTED = 0.05  # of the candidates, by the gate
SPREAD = 0.3  # standard deviation of the logarithm of a candidate's time for a step
_CHECKED = "as many words as a check of the gate takes to say what it saw at the lengths and places that it looked at"


@dataclass(frozen=True)
class Step:
    """Seconds of work, and the result that is told at their end, as `TrialWorker.step` gives it."""

    seconds: float
    result: dict[str, Any]


class Trials:
    """Of one search.

    Args:
      train_seconds: of a trial that goes to its end, at the speed of the typical candidate.
      gate_seconds: of the gate, which an accelerator waits for.
    """

    def __init__(self, settings: Settings, space: SearchSpace, train_seconds: float, gate_seconds: float):
        self._settings = settings
        self._space = space
        self._train_seconds = train_seconds
        self._gate_seconds = gate_seconds
        self._rungs = rung_steps(settings)

    def steps(self, assignment: Assignment) -> Iterator[Step]:
        """One after another, for as long as the scheduler lets it go on."""
        rng = random.Random(f"{self._settings.seed}/{assignment.trial}")
        gated = assignment.purpose != "confirm"
        seconds = self._gate_seconds if gated else 0.0
        cost = {"gate_seconds": seconds, "train_seconds": 0.0, "total_seconds": seconds}
        if assignment.purpose == "search" and rng.random() < REJECTED:
            outcome = outcome_to_json(Rejected("causality", f"output 17 moved when input 40 changed; {_CHECKED}"))
            yield Step(seconds, _told({"outcome": outcome, "cost": cost}, None, done=True))
            return
        certificate = asdict(self._certificate(assignment)) if gated else None
        speed = math.exp(rng.gauss(0.0, SPREAD))
        bits = self._bits_per_byte(assignment.candidate.source) + rng.gauss(0.0, 0.02)
        measured: dict[str, Any] = {}
        for before, rung in zip((0, *self._rungs), self._rungs, strict=False):
            training = self._train_seconds * speed * self._share(before, rung)
            seconds, cost = seconds + training, {**cost, "train_seconds": cost["train_seconds"] + training}
            cost["total_seconds"] = cost["gate_seconds"] + cost["train_seconds"]
            measured = {
                "step": rung,
                "bits_per_byte": bits + 20 / rung + rng.gauss(0.0, 0.01),
                "stderr": 0.01,
                "learning_rate": 0.008,
                "train_seconds": cost["train_seconds"],
                "tokens_per_second": 1e5 / speed,
                "peak_bytes": 2**30,
                "flops_per_token": 3e5 * speed,
                "params": 10**6,
            }
            yield Step(seconds, _told({"rung": measured, "cost": cost}, certificate))
            seconds = 0.0
        outcome = fitness_json(measured, self._settings.fitness.kind)
        yield Step(0.0, _told({"outcome": outcome, "cost": cost}, certificate, done=True))

    def _share(self, before: int, rung: int) -> float:
        """Of a whole training, from one rung to the next: up to the first each learning rate of the grid is tried."""
        first, last, rates = self._rungs[0], self._rungs[-1], len(self._settings.train.grid)
        return (rung - before) * (rates if not before else 1) / (first * rates + last - first)

    def _bits_per_byte(self, source: str) -> float:
        return 2.8 + sum(0.05 * _share_of(f"{slot}={part}") for slot, part in self._space.describe(source).items())

    def _certificate(self, assignment: Assignment) -> Certificate:
        names = ("static", "contract", "causality", "purity", "parity", "cost", "novelty")
        fingerprint = hashlib.sha256(assignment.candidate.id.encode()).hexdigest()[:16]
        exponents = {"flops": 1.0, "memory": 1.0}
        return Certificate(dict.fromkeys(names, _CHECKED), 1e5, 20_000, 4096, exponents, fingerprint)


def _share_of(word: str) -> float:
    """In [-1, 1), fixed for each word."""
    return int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) / 2**31 - 1


def _told(event: dict[str, Any], certificate: dict[str, Any] | None, done: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {"event": json.dumps(event), "certificate": json.dumps(certificate)}
    if "rung" in event:
        result |= {STEP: event["rung"]["step"], METRIC: event["rung"]["bits_per_byte"], DECIDED: False}
    return {**result, "done": True} if done else result
