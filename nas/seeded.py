"""A search space with what persons have approved among its baselines: to be beaten, and to be parents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from nas.space import SearchSpace
from nas.types import Candidate


class Seeded:
    """As the space it is made of, but for its baselines and starters. Satisfies `SearchSpace`."""

    def __init__(self, space: SearchSpace, approved: Sequence[Candidate]):
        self._space = space
        known = {candidate.id for candidate in space.baselines().values()}
        self._approved = {
            f"approved_{one.id}": replace(one, operator="baseline", parents=(), name=f"approved_{one.id}")
            for one in approved
            if one.id not in known
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def baselines(self) -> Mapping[str, Candidate]:
        return {**self._space.baselines(), **self._approved}

    @property
    def starters(self) -> Sequence[str]:
        return (*self._space.starters, *self._approved)


def seeded(space: SearchSpace, approved: Sequence[Candidate]) -> SearchSpace:
    return cast(SearchSpace, Seeded(space, approved)) if approved else space
