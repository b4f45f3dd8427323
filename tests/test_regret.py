"""What policies earn on bandits that change, where the truth is known: at least 100 seeds of everything.

An operator's gain is exponential with probability 0.3, else nothing. What a policy earns is counted in means, not in
draws. Its share is that of the gap between drawing evenly and always drawing the operator that is best at the time.
"""

import random
from collections import Counter, deque
from collections.abc import Callable

import pytest

from nas.meta import Policy, make_policy
from nas.settings import MetaSettings

ARMS = tuple("abcdefgh")
TRIALS, SEEDS = 400, 100
Means = Callable[[str, int], float]  # (operator, trial) -> mean gain


def stationary(rng: random.Random) -> Means:
    means = {arm: rng.expovariate(1) for arm in ARMS}
    return lambda arm, trial: means[arm]


def abrupt_switch(rng: random.Random) -> Means:
    before, after = stationary(rng), stationary(rng)
    return lambda arm, trial: (before if trial < TRIALS // 2 else after)(arm, trial)


def decaying(rng: random.Random) -> Means:
    """What an operator finds it does not find again: its gains fall with time, each at its own pace."""
    first = {arm: rng.expovariate(1) for arm in ARMS}
    pace = {arm: rng.uniform(50, 400) for arm in ARMS}
    return lambda arm, trial: first[arm] * 0.5 ** (trial / pace[arm])


def rare_outliers(rng: random.Random) -> Means:
    """One operator gains seldom and much: as much again as all others together."""
    means = {arm: 0.3 * rng.expovariate(1) for arm in ARMS}
    means[rng.choice(ARMS)] = 1.0
    return lambda arm, trial: means[arm]


def identical(rng: random.Random) -> Means:
    return lambda arm, trial: 1.0


CHANGING = (stationary, abrupt_switch, decaying, rare_outliers)


def earned(policy: Policy, means: Means, seed: int, in_flight: int = 8) -> tuple[float, Counter[str]]:
    """(mean gains earned, how often each operator was chosen) in `TRIALS` trials."""
    rng, flying = random.Random(seed), deque[str]()
    total, counts = 0.0, Counter[str]()
    for trial in range(TRIALS):
        chances = policy.probabilities(Counter(flying))
        flying.append(rng.choices(list(chances), list(chances.values()))[0])
        counts[flying[-1]] += 1
        total += means(flying[-1], trial)
        if len(flying) == in_flight:
            ended = flying.popleft()
            mean = means(ended, trial)
            policy.update(ended, rng.expovariate(0.3 / mean) if mean and rng.random() < 0.3 else 0.0)
    return total, counts


def share(kind: str, bandit: Callable[[random.Random], Means], in_flight: int = 8, seeds: int = SEEDS) -> float:
    """Of the gap between drawing evenly and the oracle, over many bandits."""
    got = even = best = 0.0
    for seed in range(seeds):
        means = bandit(random.Random(f"bandit {seed}"))
        got += earned(make_policy(MetaSettings(kind), ARMS), means, seed, in_flight)[0]
        for trial in range(TRIALS):
            of_all = [means(arm, trial) for arm in ARMS]
            even, best = even + sum(of_all) / len(ARMS), best + max(of_all)
    return (got - even) / (best - even)


@pytest.mark.parametrize("bandit", CHANGING)
def test_the_default_captures_a_third_of_what_there_is_to_gain(bandit: Callable[[random.Random], Means]) -> None:
    assert share(MetaSettings().kind, bandit) >= 0.30


@pytest.mark.parametrize("in_flight", [1, 32])
def test_it_does_so_with_few_and_with_many_in_flight(in_flight: int) -> None:
    assert sum(share(MetaSettings().kind, bandit, in_flight) for bandit in CHANGING) / len(CHANGING) >= 0.30


@pytest.mark.parametrize("kind", ["swucb", "thompson", "pursuit"])
def test_the_others_learn_too(kind: str) -> None:
    assert share(kind, stationary) > 0.15


def test_the_controls_do_not() -> None:
    assert abs(share("uniform", stationary)) < 0.02 and abs(share("fixed", stationary)) < 0.02


def test_of_identical_operators_none_is_preferred() -> None:
    counts, most = Counter[str](), 0.0
    for seed in range(SEEDS):
        _, chosen = earned(make_policy(MetaSettings(), ARMS), identical(random.Random(0)), seed)
        counts += chosen
        most += max(chosen.values()) / TRIALS / SEEDS
    assert all(0.8 / len(ARMS) < count / counts.total() < 1.2 / len(ARMS) for count in counts.values())
    assert most < 0.5, "nor is one in any single search"


def test_an_operator_that_comes_later_is_tried_at_once_and_found() -> None:
    """Half way there is a ninth, twice as good as the best: from then on it has far more than a fair share."""
    means = dict.fromkeys(ARMS, 0.5) | {"a": 1.0, "late": 2.0}
    of_late = 0.0
    for seed in range(SEEDS):
        policy, rng, later = make_policy(MetaSettings(), ARMS), random.Random(seed), list[str]()
        for trial in range(TRIALS):
            if trial == TRIALS // 2:
                policy.add("late")
                assert policy.probabilities({})["late"] == 1
            chances = policy.probabilities({})
            arm = rng.choices(list(chances), list(chances.values()))[0]
            later += [arm] if trial >= TRIALS // 2 else []
            policy.update(arm, rng.expovariate(0.3 / means[arm]) if rng.random() < 0.3 else 0.0)
        of_late += later.count("late") / len(later) / SEEDS
    assert of_late > 3 / len(means)
