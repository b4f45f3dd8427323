"""Which mutation operator to try next: the meta-learner.

A policy gives the probability of each operator, so that every choice can be logged with it and policies can be compared
off-line. Credit is the child's gain over its parent; a gain within the noise, a rejection and a crash are zero. What is
held earns nothing either way until a person accepts it.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from nas.settings import MetaSettings


class Policy(Protocol):
    """Chooses among operators by their probability, and learns from gains."""

    def probabilities(self, in_flight: Mapping[str, int], possible: Collection[str] | None = None) -> dict[str, float]:
        """Operator -> probability of being chosen now. Changes nothing.

        Args:
          in_flight: operator -> how many of its trials are running.
          possible: the operators that have something to change now; all of them if None. Others get 0.
        """
        ...

    def update(self, operator: str, gain: float) -> None:
        """A trial of `operator` ended with this gain (>= 0)."""
        ...

    def add(self, operator: str) -> None:
        """There is one more operator from now on."""
        ...

    def credit(self) -> dict[str, dict[str, float]]:
        """Operator -> {"reward": mean credit, "pulls": effective number of completed trials}."""
        ...


class Uniform:
    """Every operator equally often: the control. Keeps the credit, without using it."""

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        self._credit = _Credit(operators, settings)

    def probabilities(self, in_flight: Mapping[str, int], possible: Collection[str] | None = None) -> dict[str, float]:
        among = self._credit.among(possible)
        return {name: (name in among) / len(among) for name in self._credit.pulls}

    def update(self, operator: str, gain: float) -> None:
        self._credit.update(operator, gain)

    def add(self, operator: str) -> None:
        self._credit.add(operator)

    def credit(self) -> dict[str, dict[str, float]]:
        return self._credit.summary()


class DiscountedUcb:
    """Discounted UCB (Garivier and Moulines 2011, https://arxiv.org/abs/0805.3415) with trials in flight and a floor.

    Plays the largest of `S_k / N_k + c sqrt(2 ln(sum(N + I)) / (N_k + I_k))` with probability 1 - epsilon, else any.
    `N_k` and `S_k` are the discounted numbers of trials and sums of rewards, `I_k` the trials in flight: several
    choices made before the first result comes back then differ. Operators never tried come first.
    """

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        self._credit = _Credit(operators, settings)
        self._exploration = settings.exploration
        self._floor = settings.floor

    def probabilities(self, in_flight: Mapping[str, int], possible: Collection[str] | None = None) -> dict[str, float]:
        pulls, among = self._credit.pulls, self._credit.among(possible)
        tried = {name: pulls[name] + in_flight.get(name, 0) for name in pulls}
        untried = [name for name in among if tried[name] == 0]
        if untried:
            return {name: (name in untried) / len(untried) for name in pulls}
        width = 2 * math.log(max(sum(tried.values()), 1.0))
        scores = {name: self._credit.mean(name) + self._exploration * math.sqrt(width / tried[name]) for name in among}
        best = max(scores.values())
        winners = [name for name, score in scores.items() if score == best]
        floor = self._floor / len(among)
        return {
            name: (floor + (1 - self._floor) / len(winners) * (name in winners)) if name in among else 0.0
            for name in pulls
        }

    def update(self, operator: str, gain: float) -> None:
        self._credit.update(operator, gain)

    def add(self, operator: str) -> None:
        self._credit.add(operator)

    def credit(self) -> dict[str, dict[str, float]]:
        return self._credit.summary()


class _Credit:
    """Discounted reward per operator. A reward is a gain over the largest gain of the last `window` completions."""

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        if not operators:
            raise ValueError("the search space has no mutation operators")
        self.pulls = dict.fromkeys(operators, 0.0)
        self._sums = dict.fromkeys(operators, 0.0)
        self._recent: deque[float] = deque(maxlen=settings.window)
        self._discount = settings.discount

    def update(self, operator: str, gain: float) -> None:
        if not (math.isfinite(gain) and gain >= 0):
            raise ValueError(f"a gain is finite and not negative, not {gain}")
        self._recent.append(gain)
        largest = max(self._recent)
        for name in self.pulls:
            self.pulls[name] *= self._discount
            self._sums[name] *= self._discount
        self.pulls[operator] += 1.0
        self._sums[operator] += gain / largest if largest else 0.0

    def add(self, operator: str) -> None:
        self.pulls.setdefault(operator, 0.0)
        self._sums.setdefault(operator, 0.0)

    def among(self, possible: Collection[str] | None) -> list[str]:
        """The operators of `possible`, in the order of all."""
        return [name for name in self.pulls if possible is None or name in possible]

    def mean(self, operator: str) -> float:
        return self._sums[operator] / self.pulls[operator] if self.pulls[operator] else 0.0

    def summary(self) -> dict[str, dict[str, float]]:
        return {name: {"reward": self.mean(name), "pulls": pulls} for name, pulls in self.pulls.items()}


POLICIES: dict[str, type[Uniform] | type[DiscountedUcb]] = {"ducb": DiscountedUcb, "uniform": Uniform}


def make_policy(settings: MetaSettings, operators: Sequence[str]) -> Policy:
    """The policy that the settings name."""
    return POLICIES[settings.kind](operators, settings)
