"""Policies: how the probability of each operator follows from what was earned. One interface, one contract test."""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nas.meta.evidence import Context, Evidence
from nas.meta.posterior import Posterior
from nas.settings import MetaSettings

Contexts = Mapping[str, Context]  # operator -> what the parent is like, from coarse to fine
_NOWHERE: Contexts = MappingProxyType({})
Foreseen = Mapping[str, Sequence[float]]  # operator -> its best child's bits per byte, by each of some draws
_NOTHING: Foreseen = MappingProxyType({})
_DRAWS = 512  # of the posterior, which a probability is counted from


@dataclass(frozen=True)
class Situation:
    """What a choice may look at: trials in flight, what the parent is like, what its children may be."""

    in_flight: Mapping[str, int]
    contexts: Contexts
    foreseen: Foreseen


class Policy(ABC):
    """Chooses among operators by their probability, and learns from gains.

    `foresees`: whether it wants to be told what children may be worth.
    """

    foresees = False

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        self._settings = settings
        self._recent: deque[float] = deque(maxlen=settings.window)  # gains
        self._evidence = Evidence(operators, self._discount, settings.pooling)

    @property
    def _discount(self) -> float:
        return self._settings.discount

    @abstractmethod
    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        """Operator -> its share, for those of `among`."""

    def probabilities(
        self,
        in_flight: Mapping[str, int],
        possible: Collection[str] | None = None,
        contexts: Contexts = _NOWHERE,
        foreseen: Foreseen = _NOTHING,
    ) -> dict[str, float]:
        """Operator -> probability of being chosen now. Changes nothing.

        Args:
          in_flight: operator -> how many of its trials are running.
          possible: the operators that have something to change now; all of them if None. Others get 0.
          contexts: operator -> what the parent is like, for whoever learns what pays off where.
          foreseen: operator -> what its best child may be worth (see `nas.predictor`), for whoever looks ahead.
        """
        among = [name for name in self._evidence.operators if possible is None or name in possible]
        weights = self._weights(among, Situation(in_flight, contexts, foreseen))
        total = sum(weights.values())
        return {name: weights.get(name, 0.0) / total for name in self._evidence.operators}

    def update(self, operator: str, gain: float, context: Context = ()) -> None:
        """A trial of `operator` ended with this gain (>= 0), its parent being like `context`.

        A reward is a gain over the largest gain of the last `window` completions.
        """
        if not (math.isfinite(gain) and gain >= 0):
            raise ValueError(f"a gain is finite and not negative, not {gain}")
        self._recent.append(gain)
        largest = max(self._recent)
        self._learn(operator, gain / largest if largest else 0.0, tuple(context))

    def _learn(self, operator: str, reward: float, context: Context) -> None:
        self._evidence.update(operator, reward, context)

    def add(self, operator: str) -> None:
        """There is one more operator from now on."""
        if operator not in self._evidence.operators:
            self._evidence.operators.append(operator)

    def credit(self) -> dict[str, dict[str, float]]:
        """Operator -> {"reward": mean credit, "pulls": effective number of completed trials}."""
        known = self._evidence
        return {name: {"reward": known.mean(name), "pulls": known.pulls(name)} for name in known.operators}

    def posterior(self) -> Posterior:
        """What was learned, for a later search."""
        return self._evidence.posterior()

    def start_from(self, prior: Posterior, weight: float) -> None:
        """Begins with what an earlier search has learned, each of its trials counted as `weight` of one."""
        self._evidence.start_from(prior, weight)

    def _even(self, among: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(among, 1 / len(among))

    def _floored(self, weights: Mapping[str, float]) -> dict[str, float]:
        """With probability `floor` any operator."""
        floor = self._settings.floor
        return {name: floor / len(weights) + (1 - floor) * weight for name, weight in weights.items()}


class Uniform(Policy):
    """Every operator equally often: the control. Keeps the credit, without using it."""

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        return self._even(among)


class Fixed(Policy):
    """Each operator by the weight that `meta.weights` gives it, those not named by 1. Keeps the credit."""

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        weights = {name: self._settings.weights.get(name, 1.0) for name in among}
        return weights if sum(weights.values()) else self._even(among)


class DiscountedUcb(Policy):
    """Discounted UCB (Garivier and Moulines 2011, https://arxiv.org/abs/0805.3415) with trials in flight and a floor.

    Plays the largest of `S_k / N_k + c sqrt(2 ln(sum(N + I)) / (N_k + I_k))` with probability 1 - epsilon, else any.
    `N_k` and `S_k` are the discounted numbers of trials and sums of rewards, `I_k` the trials in flight: several
    choices made before the first result comes back then differ. Operators never tried come first. In a context, mean
    and number are the pooled ones of `nas.meta.evidence`.
    """

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        known = self._evidence
        tried = {name: known.pulls(name) + now.in_flight.get(name, 0) for name in known.operators}
        if untried := [name for name in among if tried[name] == 0]:
            return self._even(untried)
        width = 2 * math.log(max(sum(tried.values()), 1.0))
        scores = {}
        for name in among:
            context = now.contexts.get(name, ())
            number = known.weight(name, context) + now.in_flight.get(name, 0)
            bonus = math.sqrt(width / number) if number else math.inf
            scores[name] = known.mean(name, context) + self._settings.exploration * bonus
        best = max(scores.values())
        winners = [name for name, score in scores.items() if score == best]
        return self._floored({name: (name in winners) / len(winners) for name in among})


class SlidingWindowUcb(DiscountedUcb):
    """UCB over the last `horizon` trials (Garivier and Moulines 2011): what is older does not count at all."""

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        super().__init__(operators, settings)
        self._last: deque[tuple[str, float, Context]] = deque()

    @property
    def _discount(self) -> float:
        return 1.0

    def _learn(self, operator: str, reward: float, context: Context) -> None:
        super()._learn(operator, reward, context)
        self._last.append((operator, reward, context))
        if len(self._last) > self._settings.horizon:
            self._evidence.update(*self._last.popleft(), count=-1.0)


class DiscountedThompson(Policy):
    """Discounted Thompson sampling (Raj and Kalyani 2017, https://arxiv.org/abs/1707.09727): plays who may be best.

    The chance of a reward is Beta(1 + S, 1 + N - S); trials in flight count with the mean so far, so that they narrow
    it and say nothing. The probability of a choice is counted from draws, the same every time: it can be logged.
    """

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        import numpy as np  # late: a command line that never gets here should not wait for it

        known = self._evidence
        means = np.array([known.mean(name, now.contexts.get(name, ())) for name in among])
        numbers = [known.weight(name, now.contexts.get(name, ())) for name in among]
        flying = [now.in_flight.get(name, 0) * (number > 0) for name, number in zip(among, numbers, strict=True)]
        trials = np.array(numbers) + np.array(flying)
        draws = np.random.default_rng(0).beta(1 + means * trials, 1 + (1 - means) * trials, (_DRAWS, len(among)))
        wins = np.bincount(draws.argmax(axis=1), minlength=len(among)) / _DRAWS
        return self._floored(dict(zip(among, wins.tolist(), strict=True)))


class AdaptivePursuit(Policy):
    """Adaptive pursuit (Thierens 2005): each trial moves the probabilities a step towards the operator that earns most.

    None falls below half of an equal share. Contexts and trials in flight are not looked at.
    """

    def __init__(self, operators: Sequence[str], settings: MetaSettings):
        super().__init__(operators, settings)
        self._chances = self._even(operators)

    def _learn(self, operator: str, reward: float, context: Context) -> None:
        super()._learn(operator, reward, context)
        best = max(self._chances, key=self._evidence.mean)
        least = 1 / (2 * len(self._chances))
        most, step = 1 - (len(self._chances) - 1) * least, self._settings.pursuit
        for name, chance in self._chances.items():
            self._chances[name] = chance + step * ((most if name == best else least) - chance)

    def add(self, operator: str) -> None:
        super().add(operator)
        self._chances.setdefault(operator, 1 / (len(self._chances) + 1))
        total = sum(self._chances.values())
        self._chances = {name: chance / total for name, chance in self._chances.items()}

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        return {name: self._chances[name] for name in among}


class Foresight(DiscountedUcb):
    """Plays the operator whose best child is likeliest to be the best of all that this parent could have.

    By the predictor of `nas.predictor`: the probability of an operator is the share of draws of its weights in which
    its best new child has the fewest bits per byte. So it looks at children, where the bandits look at the past; what
    it can't look ahead of, it leaves to discounted UCB, as before anything is known.
    """

    foresees = True

    def _weights(self, among: Sequence[str], now: Situation) -> Mapping[str, float]:
        known = [name for name in among if name in now.foreseen]
        if not known:
            return super()._weights(among, now)
        draws = list(zip(*(now.foreseen[name] for name in known), strict=True))
        wins = [min(range(len(known)), key=draw.__getitem__) for draw in draws]
        return self._floored(
            {name: wins.count(known.index(name)) / len(draws) if name in known else 0.0 for name in among}
        )
