"""The search as ask and tell: pure of Ray, MLflow and JAX.

`ask` hands out trials: first the baselines and repeats of one of them for the noise, then proposals, at the end fresh
seeds for the best candidate and the best baseline. `tell` takes outcomes. Every event goes to the journal before anyone
else hears of it; a search is resumed by replaying its journal through the same code.

What is too good is told as a score and kept as `Held` (see `nas.tripwires`): it is recorded, and spent its budget, but
nothing is learned from it until the journal has a person's word (`nas review`), which counts from the next resume on.
"""

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from nas import tripwires
from nas.archive import Archive
from nas.errors import UserError
from nas.journal import Event
from nas.meta import make_policy
from nas.proposers import Exhausted, Request, make_proposer
from nas.settings import Settings
from nas.space import NotApplicable, SearchSpace
from nas.types import (
    Budget,
    Candidate,
    Cost,
    Crashed,
    Fitness,
    Held,
    Outcome,
    Rejected,
    Rung,
    Trial,
    candidate_from_json,
    candidate_to_json,
    trial_from_json,
    trial_to_json,
)

_COPIES_IN_A_ROW = 200  # after so many, with nothing trained between them, the proposer is taken to have nothing new
_DRAWS = 3  # of parents, in which an operator finds nothing to change before it is left out of a proposal


@dataclass(frozen=True)
class Assignment:
    """A trial that was handed out. `rungs` are those measured before an interruption."""

    trial: str
    candidate: Candidate
    purpose: str
    budget: Budget
    rungs: tuple[Rung, ...] = ()


@dataclass(frozen=True)
class _Draw:
    """A proposal's arguments, and how its operator was chosen."""

    request: Request
    weights: Mapping[str, float]
    in_flight: Mapping[str, int]


class Search:
    """One search: what to try next, and what has been learned.

    Args:
      settings: the whole configuration.
      space: what candidates are made of.
      record: takes an event, writes it to the journal and tells whoever listens.
      clock: seconds; for the wall-clock budget.
      compressed_bits_per_byte: LZMA's, of the validation text; None: nobody is held for a loss below it.
    """

    def __init__(
        self,
        settings: Settings,
        space: SearchSpace,
        record: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        compressed_bits_per_byte: float | None = None,
    ):
        self.settings = settings
        outside = {candidate.id for candidate in space.outside_references().values()}
        self.archive = Archive(settings.search.elites, outside)
        self.trials: dict[str, Trial] = {}
        self.in_flight: dict[str, Assignment] = {}
        self.end_reason: str | None = None
        self.device_seconds = 0.0
        self._space = space
        self._proposer = make_proposer(settings.proposer, space)
        self._operators = {operator.name: operator for operator in self._proposer.operators}
        self._policy = make_policy(settings.meta, list(self._operators))
        self._record = record
        self._clock = clock
        self._compressed_bits_per_byte = compressed_bits_per_byte
        self._started = clock()
        self._lock = threading.RLock()
        self._asked = 0
        self._proposed = 0  # proposals of any outcome
        self._proposals_left = settings.search.trials  # to hand out; copies do not count
        self._proposals_ended: str | None = None  # why there are no more although some are left
        self._copies = 0  # in a row
        self._compared: set[tuple[str, int]] = set()  # (candidate id, training seed) of everything handed out
        self._seen: dict[str, str] = {}  # candidate id -> trial that tried it first
        self._rungs: dict[str, list[Rung]] = {}
        self._unfinished: list[Assignment] = []  # of an earlier, interrupted run
        self._decided: set[str] = set()  # held trials that a person has accepted or refused
        self._accepted: dict[str, Fitness] = {}  # of these, what was accepted: trial -> its score
        window = settings.tripwire.collapse_window
        self._last_families: deque[str] = deque(maxlen=window)  # of trained candidates
        self._last_operators: deque[str] = deque(maxlen=window)  # of proposals
        self._collapsed = False  # since the last notice

    # ask

    def ask(self) -> Assignment | None:
        """The next trial; None if there is none now. Then `finished` says whether there will be one later.

        May take as long as the proposer does; meanwhile other threads may tell. One thread at a time may ask.
        """
        misses: list[str] = []  # operators that found nothing to change, since the last proposal
        while True:
            with self._lock:
                due = self._due(misses)
            if not isinstance(due, _Draw):
                return due
            try:
                candidate = self._proposer.propose(due.request)
            except NotApplicable:
                misses.append(due.request.operator.name)
                continue
            except Exhausted:
                with self._lock:
                    self._proposals_ended = "trials"
                continue
            misses.clear()
            with self._lock:
                if self.end_reason is not None:  # it ended while the proposer was at work
                    return None
                assignment = self._assign(candidate, "search", self.settings.train.seed, due)
                if not self._is_copy(assignment):
                    return assignment
                self._reject_copy(assignment)

    def _due(self, misses: Sequence[str]) -> Assignment | _Draw | None:
        """What comes next: a trial that needs no proposer, the arguments of a proposal, or nothing for now."""
        if self.over_budget():
            return None
        while self._unfinished:
            assignment = self._hand_out(self._unfinished.pop(0))
            if not self._is_copy(assignment):
                return assignment
            self._reject_copy(assignment)
        cap = self.settings.budget.trials
        if cap is not None and self._asked >= cap:
            if not self.in_flight:
                self.stop(f"budget.trials={cap}")
            return None
        for candidate, seed, purpose in self._comparisons():
            if (candidate.id, seed) not in self._compared:
                return self._assign(candidate, purpose, seed)
        if self._proposing:
            return self._draw(misses) if self.archive.possible_parents() or not self.in_flight else None
        if not self.in_flight:
            self.stop(self._proposals_ended or "trials")
        return None

    @property
    def _proposing(self) -> bool:
        return self._proposals_left > 0 and self._proposals_ended is None

    def _draw(self, misses: Sequence[str]) -> Assignment | _Draw | None:
        """An operator by the policy's probabilities and parents for it; what is due instead if there is none."""
        rng = random.Random(f"{self.settings.seed}/{self._asked}/{len(misses)}")
        in_flight = self._operators_in_flight()
        parents = len(self.archive.possible_parents())
        possible = [
            name
            for name, operator in self._operators.items()
            if operator.parents <= parents and misses.count(name) < _DRAWS
        ]
        if not possible or self._copies >= _COPIES_IN_A_ROW:
            if self.in_flight:  # what they find may be a parent of something new
                return None
            if possible:
                self._proposals_ended = f"nothing new in {_COPIES_IN_A_ROW} proposals in a row"
            else:
                self._proposals_ended = (
                    "no operator has anything to change" if parents else "no baseline could be trained"
                )
            return self._due(misses)
        weights = self._policy.probabilities(in_flight, possible)
        operator = self._operators[rng.choices(list(weights), list(weights.values()))[0]]
        chosen = self.archive.choose_parents(operator.parents, rng)
        return _Draw(Request(operator, chosen, self._proposed, rng), weights, in_flight)

    def _is_copy(self, assignment: Assignment) -> bool:
        """Whether it is a proposal of what was tried before."""
        return assignment.purpose == "search" and self._seen[assignment.candidate.id] != assignment.trial

    def _reject_copy(self, assignment: Assignment) -> None:
        first = self._seen[assignment.candidate.id]
        reason = f"the same program as {first}, but for its looks: change what it computes"
        self.tell(_untrained(assignment, Rejected("novelty", reason)))

    @property
    def finished(self) -> bool:
        """Whether nothing is running and nothing will be handed out any more."""
        return self.end_reason is not None and not self.in_flight

    @property
    def exhausted(self) -> bool:
        """Whether the proposer has nothing more to propose."""
        return self._proposals_ended is not None

    def stop(self, reason: str) -> None:
        """Hands out nothing more; what runs and is never told of is handed out again on resume."""
        if self.end_reason is None:
            self.end_reason = reason

    def over_budget(self) -> bool:
        """Whether the search has ended, or has to end now because a cap is reached."""
        if self.end_reason is None and (cap := self._reached_cap()):
            self.stop(cap)
        return self.end_reason is not None

    def _comparisons(self) -> Iterator[tuple[Candidate, int, str]]:
        """(candidate, training seed, purpose) of every trial beside the proposals that is due now."""
        seed = self.settings.train.seed
        baselines = self.baselines()
        yield from ((candidate, seed, "baseline") for candidate in baselines)
        told = [trial for trial in self.trials.values() if trial.purpose == "baseline"]
        failed = {trial.candidate.id for trial in told if not isinstance(trial.outcome, Fitness)}
        repeated = [candidate for candidate in baselines if candidate.id not in failed][:1]
        for number in range(self.settings.search.noise_seeds):
            yield from ((candidate, seed + 1 + number, "confirm") for candidate in repeated)
        if not self._proposing and all(a.purpose == "confirm" for a in self.in_flight.values()):
            contenders = [trial.candidate for trial in (self.best("search"), self.best("baseline")) if trial]
            for number in range(self.settings.search.confirm_seeds):
                yield from ((candidate, seed + 1 + number, "confirm") for candidate in contenders)

    def baselines(self) -> list[Candidate]:
        """The baselines of this search, the reference first."""
        available = {**self._space.baselines(), **self._space.outside_references()}
        names = self.settings.search_space.baselines or self._space.starters
        if unknown := [name for name in names if name not in available]:
            raise UserError(f"search_space.baselines: no {', '.join(unknown)}; there are {', '.join(available)}")
        first = self._space.reference
        return [available[name] for name in sorted(names, key=lambda name: name != first)]

    def _operators_in_flight(self) -> dict[str, int]:
        return dict(Counter(a.candidate.operator for a in self.in_flight.values() if a.purpose == "search"))

    def _assign(self, candidate: Candidate, purpose: str, seed: int, draw: _Draw | None = None) -> Assignment:
        duplicate = purpose == "search" and candidate.id in self._seen
        assignment = Assignment(f"t{self._asked:04d}", candidate, purpose, Budget(self.settings.train.steps, seed))
        self._record(
            {
                "event": "ask",
                "index": self._asked,
                "trial": assignment.trial,
                "purpose": purpose,
                "duplicate": duplicate,
                "budget": asdict(assignment.budget),
                "candidate": candidate_to_json(candidate),
                "probability": draw.weights[draw.request.operator.name] if draw else None,
                "weights": draw.weights if draw else {},
                "in_flight": draw.in_flight if draw else {},
            }
        )
        self._note_ask(assignment, duplicate)
        return self._hand_out(assignment)

    def _note_ask(self, assignment: Assignment, duplicate: bool) -> None:
        self._asked += 1
        if assignment.purpose == "search":
            self._proposed += 1
            self._proposals_left -= not duplicate
            self._copies = self._copies + 1 if duplicate else 0
            self._last_operators.append(assignment.candidate.operator)
            self.archive.note_child(assignment.candidate)
        self._compared.add((assignment.candidate.id, assignment.budget.seed))
        self._seen.setdefault(assignment.candidate.id, assignment.trial)

    def _hand_out(self, assignment: Assignment) -> Assignment:
        self.in_flight[assignment.trial] = assignment
        return assignment

    def _reached_cap(self) -> str | None:
        budget = self.settings.budget
        if budget.minutes is not None and self._clock() - self._started >= 60 * budget.minutes:
            return f"budget.minutes={budget.minutes:g}"
        if budget.device_hours is not None and self.device_seconds >= 3600 * budget.device_hours:
            return f"budget.device_hours={budget.device_hours:g}"
        return None

    # tell

    def tell_rung(self, trial: str, rung: Rung) -> None:
        """A trial reached a rung. Told twice, it counts once."""
        with self._lock:
            if any(rung.step <= known.step for known in self._rungs.get(trial, ())):
                return
            self._record({"event": "rung", "trial": trial, **asdict(rung)})
            self._rungs.setdefault(trial, []).append(rung)

    def tell(self, trial: Trial) -> None:
        """A trial ended. Told twice, it counts once. A score that trips a wire is held, and so recorded."""
        with self._lock:
            if trial.id in self.trials:
                return
            if held := self._held(trial):
                trial = replace(trial, outcome=held)
            gain = self._learn(trial)
            self._record({"event": "trial", **trial_to_json(trial), "gain": gain, "credit": self._policy.credit()})
            if collapse := self._new_collapse():
                self._record_collapse(collapse)

    def _held(self, trial: Trial) -> Held | None:
        """What becomes of a score that is too good; None for any other outcome."""
        fitness, settings = trial.outcome, self.settings.tripwire
        if not isinstance(fitness, Fitness):
            return None
        if reason := tripwires.entropy(fitness, self._compressed_bits_per_byte, settings):
            return Held("entropy", reason, fitness)
        if trial.purpose != "search":  # a baseline is what others leap over, and a confirmation may confirm a leap
            return None
        if reason := tripwires.gap(fitness, self._trained_baselines(), settings):
            return Held("rescore", reason, fitness)
        if reason := tripwires.leap(fitness, self._trained_baselines(), settings, self._accepted):
            return Held("leap", reason, fitness)
        return None

    def _trained_baselines(self) -> dict[str, Fitness]:
        """Name -> what the full budget made of it."""
        return {
            trial.candidate.name or trial.candidate.id: trial.outcome
            for trial in self.trials.values()
            if trial.purpose == "baseline"
            and isinstance(trial.outcome, Fitness)
            and trial.outcome.step >= trial.budget.steps
        }

    def _learn(self, trial: Trial) -> float | None:
        """Takes a finished trial into budgets, archive and credit; returns its gain over its parent."""
        self.in_flight.pop(trial.id, None)
        self._rungs.pop(trial.id, None)
        self.device_seconds += trial.cost.train_seconds
        return self._credit(trial)

    def _credit(self, trial: Trial) -> float | None:
        """Takes an outcome into archive and credit; returns the gain over the parent."""
        self.trials[trial.id] = trial
        gain = self.archive.gain(trial) if isinstance(trial.outcome, Fitness) else None
        self.archive.add(trial)
        if isinstance(trial.outcome, Fitness) and trial.purpose != "confirm":
            self._copies = 0  # there is more to make children of
        if trial.purpose == "search" and isinstance(trial.outcome, Fitness):
            self._last_families.append(self._space.family(trial.candidate.source))
        if trial.purpose == "search" and _is_evidence(trial.outcome):
            self._policy.update(trial.candidate.operator, max(gain or 0.0, 0.0))
        return gain

    def _new_collapse(self) -> str | None:
        """Onto what the search has collapsed, in a sentence; once, until it has cleared."""
        operators = list(self._last_operators) if len(self._operators) > 1 else []
        reason = tripwires.collapse(list(self._last_families), operators, self.settings.tripwire)
        known, self._collapsed = self._collapsed, reason is not None
        return None if known else reason

    def _record_collapse(self, reason: str) -> None:
        self._record({"event": "notice", "tripwire": "collapse", "reason": reason})

    def rungs_of(self, trial: str) -> tuple[Rung, ...]:
        """What was measured so far of a running trial."""
        with self._lock:
            return tuple(self._rungs.get(trial, ()))

    # resume

    def replay(self, events: Iterable[Event]) -> None:
        """Takes in the journal of an earlier run: what had ended stays ended, what was running is handed out again."""
        running: dict[str, Assignment] = {}
        untold: str | None = None  # a collapse whose notice the kill came before
        for event in events:
            if event["event"] == "ask":
                assignment = Assignment(
                    event["trial"], candidate_from_json(event["candidate"]), event["purpose"], Budget(**event["budget"])
                )
                self._note_ask(assignment, event["duplicate"])
                running[assignment.trial] = assignment
            elif event["event"] == "rung":
                self._rungs.setdefault(event["trial"], []).append(_rung_from_json(event))
            elif event["event"] == "trial":
                running.pop(event["id"], None)
                self._learn(trial_from_json(event))
                untold = self._new_collapse() or untold
            elif event["event"] == "review":
                self._take_decision(event)
                untold = self._new_collapse() or untold
            elif event["event"] == "notice":
                untold = None
            elif event["event"] == "end":
                self._copies = 0  # whoever goes on with a search that found nothing new wants it to try again
        self._unfinished = [
            Assignment(a.trial, a.candidate, a.purpose, a.budget, self.rungs_of(a.trial)) for a in running.values()
        ]
        if untold:
            self._record_collapse(untold)

    def _take_decision(self, event: Event) -> None:
        """A person's word on a held trial. Accepted, it is taken in as if it had been told as a score; once."""
        trial = self.trials.get(event["trial"])
        if trial is None or not isinstance(trial.outcome, Held) or trial.id in self._decided:
            return
        self._decided.add(trial.id)
        if event["decision"] == "accept":
            self._accepted[trial.id] = trial.outcome.fitness
            self._credit(replace(trial, outcome=trial.outcome.fitness))

    # what is known

    def best(self, purpose: str) -> Trial | None:
        """The best trained trial of this purpose at the search's own seed; None if there is none."""
        with self._lock:
            return next((trial for trial in self.archive.ranked() if trial.purpose == purpose), None)

    def waiting(self) -> list[Trial]:
        """Held trials that no person has decided on, in the order in which they ended."""
        with self._lock:
            held = [trial for trial in self.trials.values() if isinstance(trial.outcome, Held)]
            return [trial for trial in held if trial.id not in self._decided]

    def bits_per_byte_by_seed(self, candidate_id: str) -> dict[int, float]:
        """Training seed -> bits per byte after the full budget."""
        return {seed: fitness.bits_per_byte for seed, fitness in self.fitness_by_seed(candidate_id).items()}

    def fitness_by_seed(self, candidate_id: str) -> dict[int, Fitness]:
        """Training seed -> what the full budget made of this candidate."""
        return {
            trial.budget.seed: trial.outcome
            for trial in self._told()
            if trial.candidate.id == candidate_id
            and isinstance(trial.outcome, Fitness)
            and trial.outcome.step >= trial.budget.steps
        }

    def known_functions(self) -> Mapping[str, str]:
        """Fingerprint -> id of the candidate that computes it."""
        return {trial.certificate.fingerprint: trial.candidate.id for trial in self._told() if trial.certificate}

    def reference_flops_per_token(self) -> float | None:
        """Forward FLOPs per token of the reference's mixer; the dearest baseline's in a search without the reference.

        None until a baseline has its certificate.
        """
        flops = {
            trial.candidate.name: trial.certificate.flops_per_token
            for trial in self._told()
            if trial.purpose == "baseline" and trial.certificate
        }
        return flops.get(self._space.reference, max(flops.values(), default=None))

    def _told(self) -> list[Trial]:
        with self._lock:
            return list(self.trials.values())


def rung_steps(settings: Settings) -> tuple[int, ...]:
    """Optimizer steps at which a trial is measured: the first rung, then each `reduction_factor` times further."""
    steps, rungs = settings.train.steps, []
    rung: float = max(1, round(settings.scheduler.first_rung * steps))
    while math.ceil(rung) < steps:
        rungs.append(math.ceil(rung))  # the first one at or beyond the scheduler's own milestone
        rung *= settings.scheduler.reduction_factor
    return tuple(sorted({*rungs, steps}))


def _is_evidence(outcome: Outcome) -> bool:
    """Whether an outcome says anything for or against the operator that made the candidate."""
    lost = isinstance(outcome, Crashed) and outcome.cause == "infrastructure"
    return not lost and not isinstance(outcome, Held)


def _untrained(assignment: Assignment, outcome: Rejected | Crashed) -> Trial:
    return Trial(assignment.trial, assignment.candidate, assignment.purpose, assignment.budget, outcome, Cost())


def _rung_from_json(event: Event) -> Rung:
    return Rung(**{field.name: event[field.name] for field in fields(Rung)})
