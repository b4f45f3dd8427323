"""The search as ask and tell: pure of Ray, MLflow and JAX.

`ask` hands out trials: first the baselines and repeats of some for the noise, then proposals, at the end fresh seeds
for the best candidate and the best baseline (`nas.comparisons`). `tell` takes outcomes. Every event goes to the journal
before anyone else hears of it; a search is resumed by replaying its journal through the same code.

What is too good is told as a score and kept as `Held` (see `nas.tripwires`): it is recorded, and spent its budget, but
nothing is learned from it until the journal has a person's word (`nas review`), which counts from the next resume on.

What other searches have trained may come in as guests (`nas.guests`): before something is handed out, as events.

A proposer that takes its time works ahead (`nas.background`): its proposals are drawn when a trial ends, not when a
worker is free, and are handed out as they come. Where nothing comes of one, or in time, the grammar takes its place.
"""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice

from nas import tripwires
from nas.ahead import Pace, Stage, Threads
from nas.analyses import Analyses
from nas.archive import Archive
from nas.background import Background, Work
from nas.chooser import Chooser
from nas.comparisons import Comparison, Comparisons, rung_steps
from nas.comparisons import baselines_of as baselines_of
from nas.credit import Credit
from nas.fidelity import Audit
from nas.journal import Event
from nas.meta import Posterior, make_policy
from nas.noise import Noise, noise_from_json, noise_to_json
from nas.notices import Notices
from nas.population import Population
from nas.proposers import AheadProposer, Exhausted, Proposal, Request, make_proposer
from nas.replay import Script
from nas.scores import Scores
from nas.settings import Settings
from nas.space import NotApplicable, SearchSpace
from nas.types import (
    Budget,
    Candidate,
    Cost,
    Crashed,
    Fitness,
    Held,
    Rejected,
    Rung,
    Trial,
    candidate_from_json,
    candidate_to_json,
    trial_from_json,
    trial_to_json,
)
from nas.widening import Width, widened

_COPIES_IN_A_ROW = 200  # after so many, with nothing trained between them, the proposer is taken to have nothing new
_GUESTS = 32  # that are looked at before a trial is handed out: each is an event, and workers wait


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
    """A proposal's arguments, and how its operator was chosen; of one made ahead, its work and what came of it."""

    request: Request
    weights: Mapping[str, float]
    in_flight: Mapping[str, int]
    work: Work | None = None
    proposal: Proposal | None = None


class Search:
    """One search: what to try next, and what has been learned.

    Args:
      settings: the whole configuration.
      space: what candidates are made of.
      record: takes an event, writes it to the journal and tells whoever listens.
      clock: seconds; for the wall-clock budget.
      compressed_bits_per_byte: LZMA's, of the validation text; None: nobody is held for a loss below it.
      ahead: who proposes in the background; None for a proposer that the search can wait for.
      stage: where that runs; threads of its own if None.
      script: the record of an earlier search, for its proposals to be made at the same points again.
      noise: as an earlier search has measured it, which then need not be done again.
      prior: what an earlier search has learned.
      next_guest: the event of a candidate that another search has trained, or a notice; None if there is none for now.
    """

    def __init__(
        self,
        settings: Settings,
        space: SearchSpace,
        record: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        compressed_bits_per_byte: float | None = None,
        ahead: AheadProposer | None = None,
        stage: Stage | None = None,
        script: Script | None = None,
        noise: Noise | None = None,
        prior: Posterior | None = None,
        next_guest: Callable[[], Event | None] = lambda: None,
    ):
        self.settings = settings
        outside = {candidate.id for candidate in space.outside_references().values()}
        self.archive = Archive(outside)
        self.population = Population(settings.search, outside)
        self.trials: dict[str, Trial] = {}
        self.guests: dict[str, Trial] = {}  # that other searches have trained: parents, and no results of this one
        self.in_flight: dict[str, Assignment] = {}
        self.end_reason: str | None = None
        self.device_seconds = 0.0
        self._space = space
        self._proposer = make_proposer(settings.proposer, space)  # of an `ahead`: who stands in for it
        self._operators = {operator.name: operator for operator in (ahead or self._proposer).operators}
        self._journal = record
        self._clock = clock
        self._script = script
        self._next_guest = next_guest
        self._stage = stage
        self._comparisons = Comparisons(settings, space, self.trials)
        self._scores = Scores(settings, self._comparisons.baselines)
        self.audit = Audit(rung_steps(settings), settings.search.fidelity_bound, settings.search.fidelity_trials)
        policy = make_policy(settings.meta, list(self._operators), prior)
        self._credit = Credit(settings.meta, space, self.archive, self.audit, policy, self._operators)
        self._chooser = Chooser(
            space,
            self._operators,
            self.population,
            self._credit,
            foresees=ahead is None,
            prior=prior,
            prior_weight=settings.meta.prior_weight,
        )
        self._notices = Notices(settings.tripwire, len(self._operators) > 1, self.audit)
        self.noise = Noise()
        self.noise_source: str | None = None  # "measured" | "cached", once the journal has it
        self._cached_noise = noise
        self._background = self._made_background(ahead) if ahead else None
        self._waiting_since: float | None = None  # for a proposal that is being made
        self._closed = False  # what is made in the background
        self._away: str | None = None  # why nothing is proposed ahead, as far as it was said
        self._compressed_bits_per_byte = compressed_bits_per_byte
        self._started = clock()
        self._lock = threading.RLock()
        self._asked = 0
        self._proposed = 0  # proposals of any outcome
        self._proposals_left = settings.search.trials  # to hand out; copies do not count
        self._proposals_ended: str | None = None  # why there are no more although some are left
        self._copies = 0  # in a row
        self._all_tried = False  # what the operators make of the parents that there are
        self._compared: set[tuple[str, int]] = set()  # (candidate id, training seed) of everything handed out
        self._seen: dict[str, str] = {}  # candidate id -> trial that tried it first
        self._rungs: dict[str, list[Rung]] = {}
        self._baselines: dict[str, Fitness] = {}  # name -> what the full budget made of it
        self._flops: dict[str, float] = {}  # a baseline's name -> its mixer's FLOPs per token
        self._functions: dict[str, str] = {}  # fingerprint -> id of the first candidate that computes it
        self._islands: dict[str, int | None] = {}  # trial -> where its candidate lands
        self._unfinished: list[Assignment] = []  # of an earlier, interrupted run
        self._decided: set[str] = set()  # held trials that a person has accepted or refused
        self._accepted: dict[str, Fitness] = {}  # of these, what was accepted: trial -> its score
        self._analyses = Analyses(space, self.archive, settings.train.steps)
        self._unanalysed: dict[str, Event] = {}  # trial -> what rules say of it, until the journal has it

    def _made_background(self, ahead: AheadProposer) -> Background:
        settings = self.settings.llm
        stage: Stage = self._script or self._stage or Threads(settings.concurrency)
        pace = Pace(settings.ahead, self._clock)
        return Background(ahead, stage, pace, self.archive, self.settings.seed, self.note, self._ended, self._clock)

    def _record(self, event: Event) -> None:
        """To the journal, and from there to whoever proposes ahead."""
        self._journal(event)
        self._heed(event)

    def _heed(self, event: Event) -> None:
        if event["event"] == "notice":
            self._notices.take(event)
            if family := event.get("family"):
                self.population.restart(family)
        elif event["event"] == "noise":
            self._settle(event)
        elif event["event"] == "guest":
            self._welcome(trial_from_json(event))
        if self._scores.heed(event):
            self._rescore()
        if self._script:
            self._script.saw(event)
        if self._background:
            self._background.take(event)

    # ask

    def ask(self) -> Assignment | None:
        """The next trial; None if there is none now. Then `finished` says whether there will be one later.

        May take as long as the proposer does; meanwhile other threads may tell. One thread at a time may ask.

        Raises:
          UserError: if the search can't go on.
        """
        misses: list[Request] = []  # that came to nothing new, since the last proposal
        with self._lock:
            self._advance()
            self._let_in()
        while True:
            with self._lock:
                self._advance()
                due = self._due(misses)
            if not isinstance(due, _Draw):
                return due
            try:
                proposal = due.proposal or Proposal(self._foreseen(due.request))
            except NotApplicable:
                misses.append(due.request)
                continue
            except Exhausted:
                with self._lock:
                    self._proposals_ended = "trials"
                continue
            misses.clear()
            with self._lock:
                if self.end_reason is not None:  # it ended while the proposer was at work
                    return None
                assignment = self._assign(proposal, "search", self.settings.train.seed, due)
                if not self._is_copy(assignment):
                    self._advance()
                    return assignment
                self._reject_copy(assignment)

    def _foreseen(self, request: Request) -> Candidate:
        """Of several children that the proposer could make, the one that looks best and is new.

        They are looked at by their parts, before any is made: to make one takes longer than all else that the driver
        does for a trial.

        Raises:
          NotApplicable, Exhausted: as the proposer does; the first also if none of them is new, as far as parts tell.
        """
        if self.settings.search.draws == 1 or not self._proposer.draws_freely:
            return self._proposer.propose(request)
        draws = [request.rng.getrandbits(64) for _ in range(self.settings.search.draws)]
        foreseen = self._chooser.foreseen(request.operator, request.parents, draws)
        if foreseen is None:
            return self._best_made(request, draws)
        with self._lock:
            order = self._chooser.best_first(foreseen, request.rng)
        made: list[Candidate] = []
        refusal = NotApplicable(f"{request.operator.name} finds nothing new to put in")
        for draw in order:
            try:
                child = self._drawn(request, draw)
            except NotApplicable as error:
                refusal = error
                continue
            with self._lock:
                is_new = child.id not in self._seen
            if not is_new:
                continue
            made.append(child)
            if self._space.describe(child.source) == foreseen[draw]:
                break  # else it is looked at once more, beside the next
        if not made:
            raise refusal
        with self._lock:
            return self._chooser.best_looking(made, request.rng)

    def _best_made(self, request: Request, draws: Sequence[int]) -> Candidate:
        """The same where the parents do not say what comes of them: each child is made, and then looked at."""
        first = self._drawn(request, draws[0])
        drawn = {first.id: first}
        for draw in draws[1:]:
            with contextlib.suppress(NotApplicable):
                child = self._drawn(request, draw)
                drawn.setdefault(child.id, child)
        with self._lock:
            children = [child for name, child in drawn.items() if name not in self._seen] or [first]
            return self._chooser.best_looking(children, request.rng)

    def _drawn(self, request: Request, draw: int) -> Candidate:
        return self._proposer.propose(replace(request, rng=random.Random(draw)))

    def _due(self, misses: Sequence[Request]) -> Assignment | _Draw | None:
        """What comes next: a trial that needs no proposer, the arguments of a proposal, or nothing for now."""
        if self._background and self._background.failure:
            raise self._background.failure
        if self.over_budget():
            return None
        while self._unfinished:
            assignment = self._hand_out(self._unfinished.pop(0))
            if not self._is_copy(assignment):
                return assignment
            self._reject_copy(assignment)
        if self._script and self._script.waits(bool(self.in_flight), self.stop):
            return None
        cap = self.settings.budget.trials
        if cap is not None and self._asked >= cap:
            if not self.in_flight:
                self.stop(f"budget.trials={cap}")
            return None
        for candidate, seed, purpose in self._due_comparisons():
            return self._assign(Proposal(candidate), purpose, seed)
        if self._proposing:
            if self.in_flight and (self._reference_is_open or not self.archive.has_parents()):
                return None
            return self._made_ahead(misses) if self._background else self._draw(misses)
        if not self.in_flight:
            self.stop(self._proposals_ended or "trials")
        return None

    @property
    def _reference_is_open(self) -> bool:
        """Whether a baseline runs, by which the scores of what is proposed are measured."""
        return not self._scores.fixed and any(a.purpose == "baseline" for a in self.in_flight.values())

    @property
    def _proposing(self) -> bool:
        """Whether there are more proposals to come; a repair of what was proposed before counts as one."""
        repairing = self._background is not None and self._background.repairing
        return (self._proposals_left > 0 or repairing) and self._proposals_ended is None

    def _draw(self, misses: Sequence[Request]) -> Assignment | _Draw | None:
        """An operator by the policy's probabilities and parents for it; what is due instead if there is none."""
        if self._all_tried and (self.in_flight or self._team_at_work):
            return None
        island = self.population.island_of(self._proposed)
        width = widened(self.population, island, self._proposer.operators, misses, bool(self.in_flight))
        if not width.operators or self._copies >= _COPIES_IN_A_ROW:
            self._all_tried = True
            if self.in_flight or self._team_at_work:  # what they find may be a parent of something new
                return None
            self._proposals_ended = self._nothing_new(width)
            return self._due(misses)
        rng = random.Random(f"{self.settings.seed}/{self._proposed}/{len(misses)}")
        in_flight = self._operators_in_flight()
        chosen = self._chooser.choose(width.operators, in_flight, rng, island, width.expected, width.breadth)
        request = Request(chosen.operator, chosen.parents, self._proposed, rng, island)
        return _Draw(request, chosen.weights, in_flight)

    def _nothing_new(self, width: Width) -> str:
        """Why nothing is proposed any more."""
        if width.operators:
            return f"nothing new in {_COPIES_IN_A_ROW} proposals in a row"
        return "no operator has anything new to make" if width.parents else "no baseline could be trained"

    # ahead

    def _made_ahead(self, misses: Sequence[Request]) -> Assignment | _Draw | None:
        """A proposal that is ready. One of the grammar's where nothing came of it, in time, or nobody can be asked."""
        background = self._background
        assert background is not None
        wanted = self._script.next_work() if self._script else None
        if self._script and wanted is None:
            return self._draw(misses)
        only_repairs = self._proposals_left <= 0
        while made := background.made(wanted, only_repairs):
            work, proposal = made
            if proposal:
                return _Draw(work.request, work.weights, work.in_flight, work, proposal)
            due = self._draw(misses)
            if due is not None:
                return replace(due, work=work) if isinstance(due, _Draw) else due
            if self._script:
                return None
            background.forget(work.name)  # the grammar has nothing in its place
        if self._script or self._patient():
            return None
        if only_repairs:
            background.give_up_repairs(f"it was not ready in {self.settings.llm.patience_seconds:g} seconds")
            return self._due(misses)
        return self._draw(misses)

    @property
    def _team_at_work(self) -> bool:
        """Whether there may be proposals yet that are not the grammar's."""
        return self._background is not None and not self._script and self._background.at_work

    def _patient(self) -> bool:
        """Whether an idle worker waits for what is being made."""
        assert self._background is not None
        now = self._clock()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        return self._background.outstanding > 0 and (now - self._waiting_since < self.settings.llm.patience_seconds)

    def _advance(self) -> None:
        """Settles the noise, and has as many proposals made as there should be; in a replay, those of the record."""
        self._note_noise()
        if self._closed or self.end_reason is not None:
            return
        if self._background:
            self._background.go_live()
        if self._script:
            while event := self._script.next_event():
                self._record(self._draw_ahead() if event["event"] == "draw" else event)
        elif self._background:
            self._work_ahead()

    def _work_ahead(self) -> None:
        self._say_if_away()
        while self._wants_more():
            self._record(self._draw_ahead())

    def _wants_more(self) -> bool:
        background, settings = self._background, self.settings.llm
        if background is None or self._away or not self._proposing or not self.archive.has_parents():
            return False
        if background.next_repair():
            return background.outstanding < settings.ahead
        if self._due_comparisons():
            return False  # the baselines first: they are who a proposal is made of
        most = min(background.pace.depth(), self._proposals_left)
        if self.settings.budget.trials is not None:
            most = min(most, self.settings.budget.trials - self._asked)
        return background.outstanding < most

    def _draw_ahead(self) -> Event:
        """The event that begins a proposal: the repair of a candidate, or else a new idea."""
        background = self._background
        assert background is not None
        if broken := background.next_repair():
            operator = self._operators[broken.candidate.operator]
            home = self._islands.get(broken.id) or 0
            return background.draw_event(operator, broken.candidate.parents, {}, {}, home, broken)
        drawn_operators, children = background.expected()
        in_flight = dict(Counter(self._operators_in_flight()) + Counter(drawn_operators))
        island = self.population.island_of(background.draws)
        parents = len(self.population.parents_of(island))
        possible = [name for name, operator in self._operators.items() if operator.parents <= parents]
        rng = random.Random(f"{self.settings.seed}/draw/{background.draws}")
        chosen = self._chooser.choose(possible, in_flight, rng, island, children)
        ids = [parent.id for parent in chosen.parents]
        return background.draw_event(chosen.operator, ids, chosen.weights, in_flight, island, None)

    def _say_if_away(self) -> None:
        """Tells once why the grammar goes on alone."""
        assert self._background is not None
        away = self._background.proposer.away()
        if away and away != self._away:
            self._record({"event": "notice", "tripwire": "llm", "reason": away})
        self._away = away

    def note(self, event: Event) -> None:
        """Takes an event to the journal. From any thread; when it returns it is on disk.

        In a replay what a proposer's work tells is kept until it is its turn.
        """
        with self._lock:
            if self._script and self._script.keeps(event):
                self._script.keep(event)
            else:
                self._record(event)

    def _ended(self, work: str, result: object) -> None:
        """A job of the background has ended. From its own thread."""
        with self._lock:
            assert self._background is not None
            try:
                self._background.finish(work, result)
                if not self._script:
                    self._advance()
            except Exception as error:  # nobody looks at what this thread raises; whoever asks next is told
                self._background.failure = error

    def close(self) -> None:
        """Ends what is being made in the background. What no analysis said by then, rules do."""
        if self._background is None or self._closed:
            return
        self._closed = True
        self._background.close()
        with self._lock:
            if self.end_reason == "trials" or self._script:
                for event in self._background.unanalysed():
                    self._record(event)

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

    def _due_comparisons(self) -> list[Comparison]:
        """The trials beside the proposals that are due now, and were not handed out."""
        due = [*self._comparisons.first(self.noise_source is not None)]
        if not self._proposing and all(a.purpose == "confirm" for a in self.in_flight.values()):
            due += self._comparisons.last([self.best("search"), self.best("baseline")])
        return [each for each in due if (each[0].id, each[1]) not in self._compared]

    # guests

    def _let_in(self) -> None:
        """Takes in what other searches have trained, from when the baselines say what is too good to be true here.

        Only here, once for each new trial that is asked for: so the journal alone says which choices knew a guest.
        """
        choosing = self.end_reason is None and self._proposing and not self._unfinished and not self._due_comparisons()
        if choosing and all(assignment.purpose != "baseline" for assignment in self.in_flight.values()):
            for event in islice(iter(self._next_guest, None), _GUESTS):
                if event["event"] == "notice" or self._is_welcome(trial_from_json(event)):
                    self._record(event)

    def _is_welcome(self, guest: Trial) -> bool:
        """Whether it is new here, and would not be held had it been trained here."""
        proposed = replace(guest, purpose="search")
        settings, baselines = self.settings.tripwire, self._baselines
        held = tripwires.held(proposed, self._compressed_bits_per_byte, baselines, settings, self._accepted)
        return held is None and guest.candidate.id not in self._seen

    def _welcome(self, guest: Trial) -> None:
        """It may be a parent from now on, and is nothing new. Whatever counts what this search did hears nothing."""
        self._scores.take(guest)
        guest = self._scores.scored(guest)
        self.guests[guest.id] = guest
        self._note_function(guest)
        self._seen.setdefault(guest.candidate.id, guest.id)
        self._chooser.note(guest.candidate)
        if isinstance(guest.outcome, Fitness):
            self.archive.add(guest)
            island = self.population.island_of(len(self.guests))
            self.population.land(guest, self._space.family(guest.candidate.source), island)
            self._chooser.learn(guest)
            self._copies, self._all_tried = 0, False  # there is more to make children of

    # noise

    def _note_noise(self) -> None:
        """Has the noise in the journal as soon as it is known: at once, or when all repeats have ended."""
        if self.noise_source is not None or self.end_reason is not None:
            return
        cached = self._cached_noise if not self._asked else None
        if noise := cached or self._comparisons.noise():
            spared = self._comparisons.spared if cached else 0
            source = "cached" if cached else "measured"
            self._record({"event": "noise", "source": source, "spared": spared, **noise_to_json(noise)})

    def _settle(self, event: Event) -> None:
        self.noise, self.noise_source = noise_from_json(event), event["source"]
        self.archive.settle(self.noise)

    def _operators_in_flight(self) -> dict[str, int]:
        running = [*self.in_flight.values(), *self._unfinished]
        return dict(Counter(a.candidate.operator for a in running if a.purpose == "search"))

    def _assign(self, proposal: Proposal, purpose: str, seed: int, draw: _Draw | None = None) -> Assignment:
        candidate, work = proposal.candidate, draw.work if draw else None
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
                "family": self._space.family(candidate.source),
                "probability": draw.weights.get(draw.request.operator.name) if draw else None,
                "weights": draw.weights if draw else {},
                "in_flight": draw.in_flight if draw else {},
                "island": draw.request.island if draw else None,
                "work": work.name if work else None,
                "stale": len(self.trials) - work.told if work else 0,
                "own_idea": proposal.own_idea,
            }
        )
        island = draw.request.island if draw else None
        self._note_ask(assignment, not duplicate and proposal.own_idea, duplicate, island)
        if purpose == "search":
            self._waiting_since = None
            if self._background:
                self._background.pace.taken()
        return self._hand_out(assignment)

    def _note_ask(self, assignment: Assignment, counts: bool, duplicate: bool, island: int | None) -> None:
        self._asked += 1
        self._islands[assignment.trial] = island
        if assignment.purpose == "search":
            self._proposed += 1
            self._proposals_left -= counts
            self._copies = self._copies + 1 if duplicate else 0
            self._notices.proposed(assignment.candidate.operator)
            self.population.note_child(assignment.candidate)
        self._compared.add((assignment.candidate.id, assignment.budget.seed))
        if assignment.candidate.id not in self._seen:
            self._chooser.note(assignment.candidate)
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
            self._advance()

    def tell(self, trial: Trial) -> None:
        """A trial ended. Told twice, it counts once. A score that trips a wire is held, and so recorded."""
        with self._lock:
            if trial.id in self.trials:
                return
            settings, baselines = self.settings.tripwire, self._baselines
            if held := tripwires.held(trial, self._compressed_bits_per_byte, baselines, settings, self._accepted):
                trial = replace(trial, outcome=held)
            gain = self._learn(trial)
            trial = self.trials[trial.id]
            learned = {"gain": gain, "credit": self._credit.policy.credit(), "fidelity": self.audit.to_json()}
            self._record({"event": "trial", **trial_to_json(trial), **learned})
            self._give_notice()
            self._analyse(trial, gain)
            self._write_analyses()
            self._advance()

    def _analyse(self, trial: Trial, gain: float | None) -> None:
        """Has it looked at what a proposal came to: by the proposer, else by rules."""
        said = self._analyses.of(trial, gain)
        if said and not (self._background and self._proposing and self._background.analyse(trial, said)):
            self._unanalysed[trial.id] = said

    def _write_analyses(self) -> None:
        for event in list(self._unanalysed.values()):
            self._record(event)
        self._unanalysed.clear()

    def _learn(self, trial: Trial) -> float | None:
        """Takes a finished trial into budgets, archive and credit; returns its gain over its parent."""
        self.in_flight.pop(trial.id, None)
        self._rungs.pop(trial.id, None)
        self.device_seconds += trial.cost.train_seconds
        return self._take(trial)

    def _take(self, trial: Trial) -> float | None:
        """Takes an outcome into archive, population, credit and audit; returns the gain over the parent."""
        rescores = self._scores.take(trial)
        trial = self._scores.scored(trial)
        self.trials[trial.id] = trial
        self._note_function(trial)
        outcome = trial.outcome
        if trial.purpose == "baseline" and isinstance(outcome, Fitness) and outcome.step >= trial.budget.steps:
            self._baselines[trial.candidate.name or trial.candidate.id] = outcome
        gain = self._credit.gain(trial)
        self._credit.take(trial)
        self.archive.add(trial)
        if trial.purpose in ("baseline", "search") and isinstance(outcome, Fitness):
            self.population.land(trial, self._space.family(trial.candidate.source), self._islands.get(trial.id))
            self._chooser.learn(trial)
        if rescores:
            self._rescore()
        self.audit.take(trial)
        if isinstance(trial.outcome, Fitness) and trial.purpose != "confirm":
            self._copies, self._all_tried = 0, False  # there is more to make children of
        if trial.purpose == "search" and isinstance(trial.outcome, Fitness):
            self._notices.trained(self._space.family(trial.candidate.source))
        self._notices.look()
        return gain.bits_per_byte if gain else None

    def _note_function(self, trial: Trial) -> None:
        """Keeps at hand what the specification of every trial says: a long search can't look through all for it."""
        if trial.certificate:
            self._functions.setdefault(trial.certificate.fingerprint, trial.candidate.id)
            if trial.purpose == "baseline":
                self._flops[trial.candidate.name] = trial.certificate.flops_per_token

    def _give_notice(self) -> None:
        for event in self._notices.due():
            self._record(event)

    def rungs_of(self, trial: str) -> tuple[Rung, ...]:
        """What was measured so far of a running trial."""
        with self._lock:
            return tuple(self._rungs.get(trial, ()))

    # resume

    def replay(self, events: Iterable[Event]) -> None:
        """Takes in the journal of an earlier run: what had ended stays ended, what was running is handed out again."""
        running: dict[str, Assignment] = {}
        for event in events:
            if event["event"] == "ask":
                assignment = Assignment(
                    event["trial"], candidate_from_json(event["candidate"]), event["purpose"], Budget(**event["budget"])
                )
                counts = not event["duplicate"] and event.get("own_idea", True)
                proposed = 0 if event["purpose"] == "search" else None  # before there were islands
                self._note_ask(assignment, counts, event["duplicate"], event.get("island", proposed))
                running[assignment.trial] = assignment
            elif event["event"] == "rung":
                self._rungs.setdefault(event["trial"], []).append(_rung_from_json(event))
            elif event["event"] == "trial":
                running.pop(event["id"], None)
                trial = trial_from_json(event)
                gain = self._learn(trial)
                self._heed(event)
                self._analyse(self.trials[trial.id], gain)
                continue
            elif event["event"] == "analysis":
                self._unanalysed.pop(event["trial"], None)
            elif event["event"] == "review":
                self._take_decision(event)
            elif event["event"] == "ablation":
                self._credit.take_ablation(event, self.trials)
            elif event["event"] == "notice" and event["tripwire"] == "llm":
                self._away = event["reason"]
            elif event["event"] == "end":
                self._copies = 0  # whoever goes on with a search that found nothing new wants it to try again
            self._heed(event)
        self._unfinished = [
            Assignment(a.trial, a.candidate, a.purpose, a.budget, self.rungs_of(a.trial)) for a in running.values()
        ]
        self._give_notice()
        self._write_analyses()

    def _take_decision(self, event: Event) -> None:
        """A person's word on a held trial. Accepted, it is taken in as if it had been told as a score; once."""
        trial = self.trials.get(event["trial"])
        if trial is None or not isinstance(trial.outcome, Held) or trial.id in self._decided:
            return
        self._decided.add(trial.id)
        if event["decision"] == "accept":
            self._accepted[trial.id] = trial.outcome.fitness
            self._take(replace(trial, outcome=trial.outcome.fitness))

    def _rescore(self) -> None:
        """Ranks anew, by the scores as they are now."""
        self.archive.rescore(self._scores.scored)
        self.population.rescore({trial.candidate.id: trial for trial in self.archive.ranked()})

    # what is known

    def best(self, purpose: str) -> Trial | None:
        """The best trained trial of this purpose at the search's own seed; None if there is none."""
        with self._lock:
            return self.archive.best(purpose)

    def posterior(self) -> Posterior:
        """What is known of operators and of candidates, for a later search."""
        with self._lock:
            return self._chooser.posterior()

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
        """Fingerprint -> id of the first candidate that computes it."""
        with self._lock:
            return dict(self._functions)

    def reference_flops_per_token(self) -> float | None:
        """Forward FLOPs per token of the reference's mixer; the dearest baseline's in a search without the reference.

        None until a baseline has its certificate.
        """
        with self._lock:
            return self._flops.get(self._space.reference, max(self._flops.values(), default=None))

    def _told(self) -> list[Trial]:
        with self._lock:
            return list(self.trials.values())


def _untrained(assignment: Assignment, outcome: Rejected | Crashed) -> Trial:
    return Trial(assignment.trial, assignment.candidate, assignment.purpose, assignment.budget, outcome, Cost())


def _rung_from_json(event: Event) -> Rung:
    return Rung(**{field.name: event[field.name] for field in fields(Rung)})
