"""The choice of operators: what every policy owes, and what discounted UCB promises beyond that."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest

from nas.meta import POLICIES, DiscountedUcb, Policy, make_policy
from nas.settings import MetaSettings

ARMS = ("decay", "write", "read", "norm", "layout", "gate", "crossover", "simplify")
History = Sequence[tuple[str, float]]


def policy_of(kind: str, arms: Sequence[str] = ARMS, **settings: float) -> Policy:
    return make_policy(MetaSettings(kind, **settings), arms)  # type: ignore[arg-type]


def histories(count: int = 12) -> list[History]:
    """Random histories: gains of every size, many zeros, whole runs of zeros."""
    histories = []
    for seed in range(count):
        rng = random.Random(seed)
        arms, zeros = ARMS[: rng.randint(1, len(ARMS))], rng.choice([0.0, 0.5, 0.9, 1.0])
        histories.append(
            [
                (rng.choice(arms), 0.0 if rng.random() < zeros else rng.expovariate(1) * 10 ** rng.uniform(-9, 9))
                for _ in range(rng.randint(0, 150))
            ]
        )
    return histories


def flights() -> list[Mapping[str, int]]:
    rng = random.Random(0)
    return [{}, {"decay": 1}, {arm: rng.randint(0, 9) for arm in ARMS}, dict.fromkeys(ARMS, 40), {"unheard of": 3}]


def after(policy: Policy, history: History) -> Policy:
    for arm, gain in history:
        policy.update(arm, gain)
    return policy


# What every policy owes


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("history", histories(), ids=range(12))
def test_probabilities_are_probabilities(kind: str, history: History) -> None:
    policy = after(policy_of(kind), history)
    for in_flight in flights():
        chances = policy.probabilities(in_flight)
        assert list(chances) == list(ARMS)
        assert all(0 <= chance <= 1 for chance in chances.values())
        assert sum(chances.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("history", histories(), ids=range(12))
def test_to_choose_changes_nothing(kind: str, history: History) -> None:
    policy, untouched = after(policy_of(kind), history), after(policy_of(kind), history)
    credit = policy.credit()
    for in_flight in [*flights(), *flights()]:
        assert policy.probabilities(in_flight) == untouched.probabilities(in_flight)
    assert policy.credit() == credit == untouched.credit()


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("history", histories(), ids=range(12))
def test_an_untried_operator_can_always_be_chosen(kind: str, history: History) -> None:
    chances = after(policy_of(kind), history).probabilities({})
    assert all(chances[arm] > 0 for arm in set(ARMS) - {arm for arm, _ in history})


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("history", histories(), ids=range(12))
def test_credit_is_a_mean_reward_between_none_and_the_largest(kind: str, history: History) -> None:
    credit = after(policy_of(kind), history).credit()
    assert list(credit) == list(ARMS)
    for arm, known in credit.items():
        assert 0 <= known["reward"] <= 1 and 0 <= known["pulls"] <= len(history)
        assert (known["pulls"] > 0) == (arm in {played for played, _ in history})


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("gain", [math.nan, math.inf, -math.inf, -1e-9])
def test_only_a_finite_gain_is_credited(kind: str, gain: float) -> None:
    policy = after(policy_of(kind), histories()[3])
    before = policy.credit()
    with pytest.raises(ValueError, match="gain"):
        policy.update("decay", gain)
    assert policy.credit() == before


@pytest.mark.parametrize("kind", POLICIES)
def test_the_same_history_gives_the_same_probabilities(kind: str) -> None:
    for history in histories():
        one, other = after(policy_of(kind), history), after(policy_of(kind), history)
        assert one.probabilities({"decay": 2}) == other.probabilities({"decay": 2})


@pytest.mark.parametrize("kind", POLICIES)
def test_the_unit_of_the_gain_does_not_matter(kind: str) -> None:
    """Bits or nats, powers of two apart so that rounding is the same."""
    history = [(arm, round(gain, 6) % 1) for arm, gain in histories()[0]]
    scaled = [(arm, gain * 2**10) for arm, gain in history]
    assert after(policy_of(kind), history).probabilities({}) == after(policy_of(kind), scaled).probabilities({})


@pytest.mark.parametrize("kind", POLICIES)
def test_one_operator_is_chosen_and_none_is_refused(kind: str) -> None:
    assert after(policy_of(kind, ["decay"]), [("decay", 1.0)]).probabilities({"decay": 3}) == {"decay": 1.0}
    with pytest.raises(ValueError, match="no mutation operators"):
        policy_of(kind, [])


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_has_a_setting_and_every_setting_a_policy(kind: str) -> None:
    assert MetaSettings(kind).kind == kind
    with pytest.raises(
        ValueError, match=r"^meta\.kind=exp3: there are foresight, ducb, swucb, thompson, pursuit, uniform, fixed$"
    ):
        MetaSettings("exp3")


# Discounted UCB by its formula, slowly: every sum over the whole history anew


def slow_probabilities(history: History, in_flight: Mapping[str, int], settings: MetaSettings) -> dict[str, float]:
    rewards = []
    for end in range(1, len(history) + 1):
        gain, largest = history[end - 1][1], max(gain for _, gain in history[max(0, end - settings.window) : end])
        rewards.append(gain / largest if largest > 0 else 0.0)
    trials, earned = {}, {}
    for arm in ARMS:
        ages = [(len(history) - 1 - n, rewards[n]) for n, (played, _) in enumerate(history) if played == arm]
        trials[arm] = sum(settings.discount**age for age, _ in ages)
        earned[arm] = sum(settings.discount**age * reward for age, reward in ages)
    total = {arm: trials[arm] + in_flight.get(arm, 0) for arm in ARMS}
    if untried := [arm for arm in ARMS if total[arm] == 0]:
        return {arm: (arm in untried) / len(untried) for arm in ARMS}
    scores = {
        arm: (earned[arm] / trials[arm] if trials[arm] else 0.0)
        + settings.exploration * math.sqrt(2 * math.log(sum(total.values())) / total[arm])
        for arm in ARMS
    }
    best = [arm for arm in ARMS if scores[arm] >= max(scores.values()) - 1e-12]
    return {arm: settings.floor / len(ARMS) + (1 - settings.floor) * (arm in best) / len(best) for arm in ARMS}


@pytest.mark.parametrize("window", [1, 5, 50])
@pytest.mark.parametrize("discount", [1.0, 0.995, 0.5])
@pytest.mark.parametrize(("exploration", "floor"), [(0.1, 0.05), (0.0, 0.0), (2.0, 1.0)])
def test_ducb_is_its_formula(window: int, discount: float, exploration: float, floor: float) -> None:
    settings = MetaSettings("ducb", discount, exploration, floor, window)
    for history in histories():
        for cut in {0, 1, len(history) // 2, len(history)}:
            policy = after(DiscountedUcb(ARMS, settings), history[:cut])
            for in_flight in flights():
                slow = slow_probabilities(history[:cut], in_flight, settings)
                assert policy.probabilities(in_flight) == pytest.approx(slow, abs=1e-9)


def test_the_embedded_settings_are_those_of_the_simulations() -> None:
    assert MetaSettings() == MetaSettings("foresight", discount=0.995, exploration=0.1, floor=0.05, window=50)


def test_ducb_tries_every_operator_before_any_twice() -> None:
    policy, rng, tried = policy_of("ducb"), random.Random(0), list[str]()
    for _ in ARMS:
        tried.append(play(policy, rng, {}))
        policy.update(tried[-1], rng.random())
    assert sorted(tried) == sorted(ARMS)
    in_flight = Counter[str]()
    for _ in ARMS:
        in_flight[play(policy_of("ducb"), rng, in_flight)] += 1
    assert in_flight == Counter(ARMS), "a trial in flight is a trial"


def play(policy: Policy, rng: random.Random, in_flight: Mapping[str, int]) -> str:
    chances = policy.probabilities(in_flight)
    return rng.choices(list(chances), list(chances.values()))[0]


def run(policy: Policy, gain: Mapping[str, float] | list[Mapping[str, float]], trials: int, seed: int) -> list[str]:
    """Plays `trials` times; an operator's gain is exponential around its mean three times in ten, else nothing."""
    rng = random.Random(seed)
    means = gain if isinstance(gain, list) else [gain]
    played = []
    for trial in range(trials):
        arm = play(policy, rng, {})
        mean = means[trial * len(means) // trials].get(arm, 0.0)
        policy.update(arm, rng.expovariate(1 / mean) if mean and rng.random() < 0.3 else 0.0)
        played.append(arm)
    return played


SEEDS = range(20)


def share(played: Sequence[str], arm: str) -> float:
    return played.count(arm) / len(played)


def test_ducb_finds_the_better_operator() -> None:
    means = {**dict.fromkeys(ARMS, 0.01), "norm": 0.1}
    shares = [share(run(policy_of("ducb"), means, 300, seed)[100:], "norm") for seed in SEEDS]
    uniform = [share(run(policy_of("uniform"), means, 300, seed)[100:], "norm") for seed in SEEDS]
    assert sum(shares) / len(shares) > 0.5 and sum(uniform) / len(uniform) < 0.2


def test_ducb_follows_an_abrupt_switch() -> None:
    before, later = ({**dict.fromkeys(ARMS, 0.01), arm: 0.1} for arm in ("norm", "gate"))
    played = [run(policy_of("ducb"), [before, later], 1200, seed) for seed in SEEDS]
    assert sum(share(p[300:600], "norm") for p in played) / len(played) > 0.5
    assert sum(share(p[1000:], "gate") for p in played) / len(played) > 0.5
    assert sum(share(p[1000:], "norm") for p in played) / len(played) < 0.25


def test_identical_operators_are_not_concentrated_on() -> None:
    for mean in (0.0, 0.1):
        counts = Counter[str]()
        for seed in SEEDS:
            played = run(policy_of("ducb"), dict.fromkeys(ARMS, mean), 400, seed)
            counts.update(played)
            assert max(Counter(played).values()) < 0.6 * len(played)
        fair = sum(counts.values()) / len(ARMS)
        assert all(0.5 * fair < count < 2 * fair for count in counts.values()), "over many searches none is preferred"


def test_trials_in_flight_spread_the_choices() -> None:
    """Twenty choices before any result: without trials in flight they would all be the same operator."""
    policy = after(policy_of("ducb", floor=0.0), [(arm, 0.1) for arm in ARMS] + [("norm", 0.1001)])
    alone = {arm for arm, chance in policy.probabilities({}).items() if chance}
    assert len(alone) == 1
    in_flight = Counter[str]()
    for _ in range(20):
        in_flight[play(policy, random.Random(0), in_flight)] += 1
    assert len(in_flight) >= 5


def test_a_better_operator_still_leads_with_trials_in_flight() -> None:
    policy = after(policy_of("ducb", floor=0.0), [(arm, 0.0) for arm in ARMS * 20] + [("norm", 0.1)] * 20)
    in_flight = Counter[str]()
    for _ in range(8):
        in_flight[play(policy, random.Random(0), in_flight)] += 1
    assert in_flight["norm"] == 8


def test_what_is_long_past_is_forgotten() -> None:
    policy = after(policy_of("ducb"), [(arm, 0.0) for arm in ARMS])
    pulls = []
    for _ in range(4):
        after(policy, [("decay", 0.0)] * 200)
        pulls.append(policy.credit()["norm"]["pulls"])
    assert all(later < earlier / 2 for earlier, later in pairwise(pulls))
    after(policy, [("decay", 0.0)] * 20_000)
    assert sum(policy.probabilities({}).values()) == pytest.approx(1), "not even a vanished count divides by zero"
