"""Proposals by the search space's own grammar: no account, no network, the same child for the same arguments."""

from collections.abc import Sequence

from nas.proposers.request import Request
from nas.space import SearchSpace
from nas.types import Candidate, Operator


class GrammarProposer:
    """Applies the operator it is given to the parents it is given."""

    draws_freely = True

    def __init__(self, space: SearchSpace):
        self._space = space

    @property
    def operators(self) -> Sequence[Operator]:
        return self._space.operators

    def propose(self, request: Request) -> Candidate:
        return self._space.mutate(request.operator, request.parents, request.rng)
