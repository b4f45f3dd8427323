"""What is proposed next: a parent, an operator for it, and the best-looking of the children that come of it.

The population says who may be a parent, the meta-learner how likely each operator is; the predictor, where it knows
enough, looks ahead for both.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from nas.credit import Credit
from nas.lookahead import Genome, Lookahead, Prospect
from nas.meta import Measured, Posterior
from nas.population import Population
from nas.predictor import Predictor
from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate, Fitness, Operator, Trial

_NOBODY: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Chosen:
    """An operator with its parents, and the probability of each operator when it was chosen."""

    operator: Operator
    parents: Sequence[Candidate]
    weights: Mapping[str, float]


class Chooser:
    """Of one search. A function of what it is told, in that order, and of the draws it is given.

    Args:
      foresees: whether parent and operator are chosen by what could be made: not where somebody works ahead.
      prior, prior_weight: what an earlier search has learned, and what a trial of that counts for.
    """

    def __init__(
        self,
        space: SearchSpace,
        operators: Mapping[str, Operator],
        population: Population,
        credit: Credit,
        *,
        foresees: bool,
        prior: Posterior | None = None,
        prior_weight: float = 0.0,
    ):
        self._space = space
        self._operators = operators
        self._population = population
        self._credit = credit
        self._foresees = foresees and credit.policy.foresees
        self._predictor = Predictor()
        if prior:
            self._predictor.start_from(prior.measured, prior_weight)
        self._tried: set[frozenset[tuple[str, str]]] = set()
        self._lookahead = Lookahead(space, operators, self._predictor, self._tried)

    # what is told

    def note(self, candidate: Candidate) -> None:
        """It is handed out, and new no more."""
        self._tried.add(frozenset(self._space.describe(candidate.source).items()))

    def learn(self, trial: Trial) -> None:
        """It was trained."""
        assert isinstance(trial.outcome, Fitness)
        parts = self._space.describe(trial.candidate.source)
        self._predictor.learn(Measured(parts, trial.outcome.step, trial.outcome.bits_per_byte))

    # what is chosen

    def choose(
        self,
        possible: Sequence[str],
        in_flight: Mapping[str, int],
        rng: random.Random,
        island: int,
        expected: Mapping[str, int] = _NOBODY,
        breadth: int = 1,
    ) -> Chosen:
        """A parent, one of the possible operators for it, and the other parents that this takes.

        Args:
          possible: operators.
          in_flight: operator -> how many of its trials are running.
          expected: candidate id -> children that are being made of it.
          breadth: how many times the usual number of the best may be parents. With more, nothing is looked at ahead:
            that was done, and had nothing new.
        """
        prospect = None
        if self._foresees and breadth == 1:
            first_parents = self._population.looked_ahead_of(rng, island)
            choices = [self._parents(possible, [parent], rng, island, expected, 1) for parent in first_parents]
            prospect = self._lookahead.prospect(choices, rng)
        if prospect is None:
            first = self._population.choose_parents(1, rng, island, expected=expected, breadth=breadth)
            prospect = Prospect(self._parents(possible, first, rng, island, expected, breadth), {})
        parents = prospect.parents
        parent = next((chosen[0] for chosen in parents.values() if chosen), None)
        weights = self._credit.probabilities(in_flight, possible, parent, prospect.foreseen)
        operator = self._operators[rng.choices(list(weights), list(weights.values()))[0]]
        return Chosen(operator, parents[operator.name], weights)

    def foreseen(
        self, operator: Operator, parents: Sequence[Candidate], draws: Sequence[int]
    ) -> Mapping[int, Mapping[str, str]] | None:
        """Draw -> the parts of the child that `mutate` would make with it, as far as one knows before it is made.

        Of draws that come to the same parts the first; those without a child are left out. None if the parents say too
        little.
        """
        genomes = [self._space.describe(parent.source) for parent in parents]
        found: dict[Genome, tuple[int, Mapping[str, str]]] = {}
        for draw in draws:
            try:
                variants = self._space.variants(operator, genomes, random.Random(draw))
            except NotApplicable:
                return None
            for first in variants[:1]:
                found.setdefault(frozenset(first.items()), (draw, first))
        return dict(found.values())

    def best_first(self, foreseen: Mapping[int, Mapping[str, str]], rng: random.Random) -> list[int]:
        """The draws whose children are new, by a draw of what they may be worth."""
        new = [draw for draw, parts in foreseen.items() if frozenset(parts.items()) not in self._tried]
        return [new[at] for at in self._predictor.ranked([foreseen[draw] for draw in new], rng)]

    def best_looking(self, children: Sequence[Candidate], rng: random.Random) -> Candidate:
        """The one that a draw of what they may be worth puts first."""
        return children[self._predictor.ranked([self._space.describe(child.source) for child in children], rng)[0]]

    def posterior(self) -> Posterior:
        """What is known of operators and of candidates, for a later search."""
        return replace(self._credit.policy.posterior(), measured=self._predictor.measured())

    def _parents(
        self,
        possible: Sequence[str],
        first: Sequence[Candidate],
        rng: random.Random,
        island: int,
        expected: Mapping[str, int],
        breadth: int,
    ) -> dict[str, list[Candidate]]:
        """Operator -> the parents that it would get."""
        return {
            name: self._population.choose_parents(self._operators[name].parents, rng, island, first, expected, breadth)
            for name in possible
        }
