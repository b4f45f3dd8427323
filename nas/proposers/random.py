"""Random walks of the grammar from a random baseline, with no regard to what was found: the control of a search.

Li and Talwalkar (2019, https://arxiv.org/abs/1902.07638) found random search with a few mutations hard to beat, so what
a search is worth shows beside it at the same budget.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from nas.proposers.request import Request
from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate, Operator

RANDOM = Operator("random", "walks a random number of mutations from a random baseline", parents=0)
_LONGEST = 8  # mutations


class RandomProposer:
    """Ignores the archive, and so every outcome."""

    operators: Sequence[Operator] = (RANDOM,)

    draws_freely = False

    def __init__(self, space: SearchSpace):
        self._space = space
        self._starts = list(space.baselines().values())

    def propose(self, request: Request) -> Candidate:
        """Raises NotApplicable if no operator has anything to change in the baseline that was drawn."""
        rng = request.rng
        start = candidate = rng.choice(self._starts)
        for _ in range(rng.randint(1, _LONGEST)):
            candidate = self._step(candidate, rng) or candidate
        if candidate is start:
            raise NotApplicable(f"no operator has anything to change in {start.name}")
        return replace(candidate, operator=RANDOM.name, parents=(start.id,), proposer="random")

    def _step(self, candidate: Candidate, rng: random.Random) -> Candidate | None:
        """A child by an operator drawn evenly among those that apply; None if none does."""
        for operator in rng.sample(self._space.operators, len(self._space.operators)):
            mates = [rng.choice(self._starts) for _ in range(operator.parents - 1)]
            try:
                return self._space.mutate(operator, [candidate, *mates], rng)
            except NotApplicable:
                continue
        return None
