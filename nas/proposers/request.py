"""What a proposer is asked for, and what it may answer."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nas.archive import Archive
from nas.journal import Event
from nas.types import Candidate, Operator, Trial


class Exhausted(Exception):
    """The proposer has nothing more to propose."""


class NoProposal(Exception):
    """Nothing usable came of this request: somebody else has to take it. The message says why.

    Attributes:
      cause: "model" (or its endpoint) | "cap" | "engine": who is to blame.
    """

    def __init__(self, reason: str, cause: str = "model"):
        super().__init__(reason)
        self.cause = cause


class Interrupted(Exception):
    """The work was ended from outside; a resumed search begins it again."""


@dataclass(frozen=True)
class Request:
    """One proposal's arguments.

    Attributes:
      operator: the kind of change to make.
      parents: as many as the operator takes, fewer if the archive has fewer.
      number: how many proposals came before.
      rng: the only source of randomness.
      island: where its parents were chosen, and where it lands.
      repair: the rejected or crashed trial whose candidate is to be mended; None for a new idea.
    """

    operator: Operator
    parents: Sequence[Candidate]
    number: int
    rng: random.Random
    island: int = 0
    repair: Trial | None = None


class Proposer(Protocol):
    """Writes candidates while the search waits."""

    @property
    def operators(self) -> Sequence[Operator]:
        """The kinds of change it can make: the meta-learner's arms."""
        ...

    @property
    def draws_freely(self) -> bool:
        """Whether it is the space's `mutate` by the request's draws, so that its `variants` foretell what comes."""
        ...

    def propose(self, request: Request) -> Candidate:
        """A candidate; equal requests give equal candidates.

        Raises:
          NotApplicable: if this operator can change nothing in these parents.
          Exhausted: if there is nothing more to propose at all.
        """
        ...


class Job(Protocol):
    """What is to be done for one proposal or analysis in the background; it depends on nothing that may change."""

    def __call__(self) -> Any: ...


@dataclass(frozen=True)
class Proposal:
    """What came of a job: a candidate, and whether it is an idea of its own (a repair of the same idea is not)."""

    candidate: Candidate
    own_idea: bool = True


class AheadProposer(Protocol):
    """Writes candidates in the background, before a worker is free for them: it takes its time, and may fail.

    It learns from every event of the journal (`take`), in the journal's order, and from nothing else. So its plans are
    functions of the journal, and after a kill the same works are begun again. All methods but the jobs' own calls are
    made under the search's lock.
    """

    @property
    def operators(self) -> Sequence[Operator]: ...

    def take(self, event: Event) -> None:
        """Takes in one event as the journal has it."""
        ...

    def away(self) -> str | None:
        """Why it can propose nothing now, in a sentence; None if it can."""
        ...

    def repairable(self, trial: Trial) -> bool:
        """Whether a rejected or crashed candidate is to be mended."""
        ...

    def plan(self, request: Request, archive: Archive) -> Mapping[str, Any]:
        """What it chooses for a request, as JSON values, for the journal."""
        ...

    def job(self, work: str, request: Request, plan: Mapping[str, Any], archive: Archive) -> Job:
        """What makes a `Proposal` of it, later, in another thread. Raises `NoProposal` when nothing comes of it."""
        ...

    def analysis(self, trial: Trial, rules: Event, archive: Archive) -> Job | None:
        """What makes an analysis event of a finished trial; None where the one by rules, `rules`, is all there is."""
        ...

    def side_job(self, event: Event) -> tuple[str, Job] | None:
        """(work, job) of something else that is due after a trial's event, to make an event of; None for nothing."""
        ...

    def close(self) -> None:
        """Ends every job at once: what they were paid for is in the journal."""
        ...
