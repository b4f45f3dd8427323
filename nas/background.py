"""Proposals and analyses in the background: begun from the journal's events, told to it as they end.

The state here is a function of the events, so a search that was killed begins the same works again: a proposer that
kept what it was told in the journal then goes on where it was.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.ahead import Pace, Stage
from nas.archive import Archive
from nas.errors import UserError
from nas.journal import Event
from nas.proposers import AheadProposer, Interrupted, NoProposal, Proposal, Request
from nas.types import Operator, Trial, trial_from_json


@dataclass(frozen=True)
class Work:
    """A proposal from its draw to its hand-out.

    Attributes:
      name: e.g. "p0003".
      weights, in_flight: how its operator was chosen.
      told: trials that had ended when it was drawn.
    """

    name: str
    request: Request
    weights: Mapping[str, float]
    in_flight: Mapping[str, int]
    told: int


class Background:
    """What a proposer makes ahead. All methods are called under the search's lock.

    Args:
      stage: where jobs run.
      write: takes an event to the journal; whoever calls it need not hold the lock.
      ended: called after a job has ended, without the lock.
    """

    def __init__(
        self,
        proposer: AheadProposer,
        stage: Stage,
        pace: Pace,
        archive: Archive,
        seed: int,
        write: Callable[[Event], None],
        ended: Callable[[str, Any], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.proposer = proposer
        self.pace = pace
        self.failure: BaseException | None = None  # of the engine: the search can't go on
        self._stage = stage
        self._archive = archive
        self._seed = seed
        self._write = write
        self._ended = ended
        self._clock = clock
        self._operators = {operator.name: operator for operator in proposer.operators}
        self._live = False
        self._jobs: dict[str, Callable[[], Any]] = {}  # to be begun once the journal is read
        self._begun: dict[str, float] = {}  # when each running proposal was
        self._works: dict[str, Work] = {}
        self._made: dict[str, Proposal | None] = {}  # of those: what came of it, in the order in which it came
        self._repairs: dict[str, Trial] = {}
        self._analyses: dict[str, Event] = {}  # trial -> what rules say of it, while the analysis is being made
        self._told = self._draws = 0

    # what the events say

    def take(self, event: Event) -> None:
        """Takes in one event, when it is told and when it is read again."""
        kind = event["event"]
        self.proposer.take(event)
        if kind == "draw":
            self._take_draw(event)
        elif kind == "no_proposal" and event["work"] in self._works:
            if self._works[event["work"]].request.repair:
                self.forget(event["work"])  # nobody takes it over
            else:
                self._made[event["work"]] = None
        elif kind == "ask" and event.get("work"):
            self.forget(event["work"])
        elif kind == "trial":
            self._told += 1
            if event["purpose"] == "search" and self.proposer.repairable(trial := trial_from_json(event)):
                self._repairs[trial.id] = trial
            if side := self.proposer.side_job(event):
                self._begin(*side)
        elif kind == "prompt" or (kind == "no_proposal" and event["work"] in self._jobs):
            self._jobs.pop(event["work"], None)
        elif kind == "notice" and event["tripwire"] == "llm":
            self._repairs.clear()  # nobody can be asked to mend anything
        elif kind == "analysis":
            self._analyses.pop(event["trial"], None)
            self._jobs.pop(f"a-{event['trial']}", None)

    def _take_draw(self, event: Event) -> None:
        self._draws += 1
        work, repair = event["work"], self._repairs.pop(event["repair_of"] or "", None)
        request = Request(
            self._operators[event["operator"]],
            [trial.candidate for parent in event["parents"] if (trial := self._archive.trial_of(parent))],
            event["number"],
            random.Random(f"{self._seed}/{work}"),
            event.get("island", 0),
            repair,
        )
        self._works[work] = Work(work, request, event["weights"], event["in_flight"], self._told)
        self._begin(work, self.proposer.job(work, request, event["plan"], self._archive))

    def forget(self, work: str) -> None:
        """Gives up a proposal."""
        self._works.pop(work, None)
        self._made.pop(work, None)
        self._jobs.pop(work, None)

    # jobs

    def go_live(self) -> None:
        """Begins what an earlier run left unfinished, once its journal is read; from now on works begin at once."""
        if not self._live:
            self._live = True
            jobs, self._jobs = self._jobs, {}
            for work, job in jobs.items():
                if work not in self._made:
                    self._begin(work, job)

    def _begin(self, work: str, job: Callable[[], Any]) -> None:
        if not self._live:
            self._jobs[work] = job
            return
        self._begun[work] = self._clock()
        self._stage.begin(work, job, self._ended)

    def finish(self, work: str, result: Any) -> None:
        """Takes what a job returned or raised: a `Proposal`, an analysis event, or an exception."""
        began = self._begun.pop(work, None)
        if work.startswith("p") and work not in self._works:
            return  # it was given up
        if isinstance(result, Proposal):
            if began is not None:
                self.pace.made(self._clock() - began)
            self._made[work] = result
        elif isinstance(result, UserError):
            self.failure = result
        elif isinstance(result, BaseException) and not isinstance(result, Interrupted):
            cause = result.cause if isinstance(result, NoProposal) else "engine"
            self._write({"event": "no_proposal", "work": work, "cause": cause, "reason": _in_words(result)})
        elif isinstance(result, dict):
            self._write(result)

    # proposals

    @property
    def draws(self) -> int:
        """Proposals that were begun, ever."""
        return self._draws

    @property
    def outstanding(self) -> int:
        """Proposals in the making or ready."""
        return len(self._works)

    @property
    def repairing(self) -> bool:
        """Whether a candidate is being mended, or waits for that."""
        return bool(self._repairs) or any(work.request.repair for work in self._works.values())

    def next_repair(self) -> Trial | None:
        """The trial whose candidate is to be mended next."""
        return next(iter(self._repairs.values()), None)

    def expected(self) -> tuple[dict[str, int], dict[str, int]]:
        """(operator -> proposals of it, parent -> children) that were drawn and not handed out."""
        operators: dict[str, int] = {}
        parents: dict[str, int] = {}
        for work in self._works.values():
            operators[work.request.operator.name] = operators.get(work.request.operator.name, 0) + 1
            for parent in work.request.parents:
                parents[parent.id] = parents.get(parent.id, 0) + 1
        return operators, parents

    def draw_event(
        self,
        operator: Operator,
        parents: Sequence[str],
        weights: Mapping[str, float],
        in_flight: Mapping[str, int],
        island: int,
        repair: Trial | None,
    ) -> Event:
        """The event that begins a proposal."""
        work = f"p{self._draws:04d}"
        candidates = [trial.candidate for parent in parents if (trial := self._archive.trial_of(parent))]
        request = Request(operator, candidates, self._draws, random.Random(f"{self._seed}/{work}/plan"), island, repair)
        return {
            "event": "draw",
            "work": work,
            "number": self._draws,
            "operator": operator.name,
            "parents": list(parents),
            "probability": weights.get(operator.name),
            "weights": dict(weights),
            "in_flight": dict(in_flight),
            "island": island,
            "repair_of": repair.id if repair else None,
            "plan": self.proposer.plan(request, self._archive),
        }

    def made(self, wanted: str | None = None, only_repairs: bool = False) -> tuple[Work, Proposal | None] | None:
        """The first proposal that is ready, or that of the work `wanted`; None if there is none.

        With it comes what was made, or None where nothing came of the work.
        """
        for name, proposal in self._made.items():
            work = self._works[name]
            if wanted in (None, name) and (work.request.repair or not only_repairs):
                return work, proposal
        return None

    @property
    def at_work(self) -> bool:
        """Whether a proposal is being made, or more can be asked for."""
        return len(self._works) > len(self._made) or self.proposer.away() is None

    def give_up_repairs(self, reason: str) -> None:
        """Waits no longer for candidates to be mended."""
        self._repairs.clear()
        for work in [work.name for work in self._works.values() if work.request.repair]:
            self._write({"event": "no_proposal", "work": work, "cause": "patience", "reason": reason})

    # analyses

    def analyse(self, trial: Trial, rules: Event) -> bool:
        """Begins the analysis of a trial; False if what rules say of it is all there will be."""
        job = self.proposer.analysis(trial, rules, self._archive)
        if job is None:
            return False
        self._analyses[trial.id] = rules
        self._begin(f"a-{trial.id}", job)
        return True

    def close(self) -> None:
        """Ends every job. What an analysis would have said is left to `unanalysed`. Not under the lock."""
        self.proposer.close()
        self._stage.close()

    def unanalysed(self) -> list[Event]:
        """What rules say of the trials whose analysis never ended."""
        return list(self._analyses.values())


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
