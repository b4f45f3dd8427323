"""What a proposer is asked for, and what it may answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nas.types import Candidate, Operator


class Exhausted(Exception):
    """The proposer has nothing more to propose."""


@dataclass(frozen=True)
class Request:
    """One proposal's arguments.

    Attributes:
      operator: the kind of change to make.
      parents: as many as the operator takes, fewer if the archive has fewer.
      number: how many proposals came before.
      rng: the only source of randomness.
    """

    operator: Operator
    parents: Sequence[Candidate]
    number: int
    rng: random.Random


class Proposer(Protocol):
    """Writes candidates."""

    @property
    def operators(self) -> Sequence[Operator]:
        """The kinds of change it can make: the meta-learner's arms."""
        ...

    def propose(self, request: Request) -> Candidate:
        """A candidate; equal requests give equal candidates.

        Raises:
          NotApplicable: if this operator can change nothing in these parents.
          Exhausted: if there is nothing more to propose at all.
        """
        ...
