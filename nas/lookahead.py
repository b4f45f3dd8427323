"""Which parent to change, and what each operator may make of it, before anything is made.

Every new child that one operator could make of one of the parents is looked at by the predictor, and each draw of what
they may be worth has its winner. The parent is that of a draw; the operators are then judged by the draws that this
parent wins. So parent and operator are chosen together (as BANANAS chooses among all mutations of the best, White et
al. 2021), while the policy still says with what probability it plays each operator.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nas.predictor import Predictor
from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate, Operator

_DRAWS = 256
Genome = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Prospect:
    """What could be made of one parent.

    Attributes:
      parents: operator -> this parent, and the others that the operator takes.
      foreseen: operator -> bits per byte of its best new child, on a common scale, by each of some draws.
    """

    parents: Mapping[str, Sequence[Candidate]]
    foreseen: Mapping[str, Sequence[float]]


class Lookahead:
    """Of one search: its predictor, and what each operator could make of a parent, once that was found.

    Args:
      tried: genomes that are not new; it grows.
    """

    def __init__(
        self, space: SearchSpace, operators: Mapping[str, Operator], predictor: Predictor, tried: Collection[Genome]
    ):
        self._space = space
        self._operators = operators
        self._predictor = predictor
        self._tried = tried
        self._variants: dict[tuple[str, str], Sequence[Mapping[str, str]]] = {}  # operator, parent's id

    def prospect(self, choices: Sequence[Mapping[str, Sequence[Candidate]]], rng: random.Random) -> Prospect | None:
        """One of `choices`, by how often it holds the best new child; None if nothing is known of any.

        Args:
          choices: of each possible first parent, operator -> the parents that it would get.
        """
        options = {
            (number, name): [one for one in self._made(name, chosen, rng) if frozenset(one.items()) not in self._tried]
            for number, parents in enumerate(choices)
            for name, chosen in parents.items()
        }
        worth = self._predictor.foresee(options, _DRAWS, rng)
        if not worth:
            return None
        winners = [min(zip(values, worth, strict=True))[1][0] for values in zip(*worth.values(), strict=True)]
        chosen = rng.choice(winners)
        won = [draw for draw, winner in enumerate(winners) if winner == chosen]
        foreseen = {
            name: [values[draw] for draw in won] for (number, name), values in worth.items() if number == chosen
        }
        return Prospect(choices[chosen], foreseen)

    def _made(self, name: str, parents: Sequence[Candidate], rng: random.Random) -> Sequence[Mapping[str, str]]:
        """What the operator could make of these, as genomes; nothing of what it can't change, nor of no parent."""
        if not parents:
            return ()
        operator = self._operators[name]
        if operator.parents > 1:
            return self._found(operator, parents, rng)
        key = name, parents[0].id
        if key not in self._variants:  # by draws of its own: those of the choice do not depend on what is kept here
            self._variants[key] = self._found(operator, parents, random.Random(parents[0].id))
        return self._variants[key]

    def _found(
        self, operator: Operator, parents: Sequence[Candidate], rng: random.Random
    ) -> Sequence[Mapping[str, str]]:
        try:
            return self._space.variants(operator, [self._space.describe(one.source) for one in parents], rng)
        except NotApplicable:
            return ()
