"""Whom the next proposal is drawn from, after operators have missed: of more and more parents, by who missed least.

A miss is an operator that found nothing new to make of the parents it got. Many workers soon have all that one change
can make of a few parents, and a long search too. It is better to make children of others than none, or some by two
changes at once, of which nobody could say which one it was. So with every few misses twice as many of the best may be
parents, until everybody may.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.population import Population
from nas.proposers import Request
from nas.types import Operator

_MISSES = 3  # before twice as many may be parents; among everybody, before an operator is left out while trials run
_MOST_MISSES = 16  # among everybody, before an operator is left out when nothing runs


@dataclass(frozen=True)
class Width:
    """What a proposal may be drawn from.

    Attributes:
      breadth: how many times `search.elites` are elites, as `Population.parents_of` takes it.
      parents: how many there are then.
      operators: whose turn it is; nobody's if none has anything new to make.
      expected: candidate id -> times that an operator has missed with it: it had its turn.
    """

    breadth: int
    parents: int
    operators: Sequence[str]
    expected: Mapping[str, int]


def widened(
    population: Population, island: int, operators: Sequence[Operator], misses: Sequence[Request], running: bool
) -> Width:
    """By the misses since the last proposal, in order.

    Args:
      running: whether there are trials of which something new may be made when they end: then nobody insists.
    """
    most = population.doublings(island)
    breadth = 2 ** min(len(misses) // _MISSES, most)
    parents = len(population.parents_of(island, breadth))
    missed = Counter(miss.operator.name for miss in misses)
    missed_among_all = Counter(miss.operator.name for miss in misses[_MISSES * most :])
    quota = _MISSES if running else max(_MISSES, min(parents, _MOST_MISSES))
    possible = [one.name for one in operators if one.parents <= parents and missed_among_all[one.name] < quota]
    # Who has missed lets the others go first: with credit and nothing left it would have worse and worse parents.
    fewest = min((missed[name] for name in possible), default=0)
    turn = [name for name in possible if missed[name] == fewest]
    return Width(breadth, parents, turn, Counter(parent.id for miss in misses for parent in miss.parents[:1]))
