"""Credit in contexts, and what is carried from one search to the next."""

import json
import random
from dataclasses import replace
from types import MappingProxyType

import pytest

from nas.meta import POLICIES, Measured, Posterior, make_policy
from nas.meta.evidence import Evidence
from nas.settings import MetaSettings

ARMS = ("decay", "write", "norm")


def slow(
    history: list[tuple[str, float, tuple[str, ...]]], discount: float
) -> dict[tuple[str, ...], tuple[float, float]]:
    """Every sum over the whole history anew."""
    cells: dict[tuple[str, ...], tuple[float, float]] = {}
    for age, (arm, reward, context) in enumerate(reversed(history)):
        for depth in range(len(context) + 1):
            cell = (arm, *context[:depth])
            pulls, total = cells.get(cell, (0.0, 0.0))
            cells[cell] = pulls + discount**age, total + discount**age * reward
    return cells


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_cells_are_discounted_sums(discount: float) -> None:
    rng, evidence = random.Random(0), Evidence(ARMS, discount, 4.0)
    history = []
    for _ in range(200):
        history.append((rng.choice(ARMS), rng.random(), (rng.choice("xy"), rng.choice("pq"))))
        evidence.update(*history[-1])
    expected = slow(history, discount)
    found = evidence.posterior().cells
    assert found.keys() == expected.keys()
    for cell, sums in expected.items():
        assert found[cell] == pytest.approx(sums)


def test_a_context_is_drawn_to_what_is_above_it() -> None:
    evidence = Evidence(ARMS, 1.0, 4.0)
    for _ in range(12):
        evidence.update("decay", 0.0, ("off",))
    for _ in range(4):
        evidence.update("decay", 1.0, ("per head",))
    above = 4 / 16
    assert evidence.mean("decay") == pytest.approx(above)
    assert evidence.mean("decay", ("per head",)) == pytest.approx((4 + 4 * above) / (4 + 4))
    assert evidence.mean("decay", ("off",)) == pytest.approx((0 + 4 * above) / (12 + 4))
    assert evidence.mean("decay", ("never seen",)) == pytest.approx(above)
    assert evidence.mean("decay", ("per head", "never seen")) == evidence.mean("decay", ("per head",))
    assert evidence.mean("norm", ("off",)) == 0


def test_a_mean_rests_on_its_cell_and_a_little_of_those_above() -> None:
    evidence = Evidence(ARMS, 1.0, 4.0)
    for _ in range(10):
        evidence.update("decay", 0.5, ("off",))
    assert evidence.weight("decay") == 10
    assert evidence.weight("decay", ("off",)) == 10 + 4
    assert evidence.weight("decay", ("never seen",)) == 4
    assert evidence.weight("norm", ("off",)) == 0


@pytest.mark.parametrize("kind", ["ducb", "swucb", "thompson"])
def test_a_policy_learns_where_an_operator_pays_off(kind: str) -> None:
    """Two operators of equal worth on the whole: each helps one kind of parent and does nothing for the other."""
    policy, rng = make_policy(MetaSettings(kind, floor=0.0), ("decay", "norm")), random.Random(0)
    helped = {"decay": "bare", "norm": "wild"}
    right = 0
    for trial in range(300):
        parent = rng.choice(["bare", "wild"])
        contexts = dict.fromkeys(("decay", "norm"), (parent,))
        chances = policy.probabilities({}, contexts=contexts)
        arm = rng.choices(list(chances), list(chances.values()))[0]
        right += trial >= 100 and helped[arm] == parent
        policy.update(arm, rng.random() if helped[arm] == parent else 0.0, contexts[arm])
    assert right > 0.85 * 200
    assert policy.credit()["decay"]["reward"] == pytest.approx(policy.credit()["norm"]["reward"], abs=0.2)


def test_the_sliding_window_forgets_whole() -> None:
    policy = make_policy(MetaSettings("swucb", horizon=5), ARMS)
    policy.update("decay", 1.0, ("off",))
    for _ in range(5):
        policy.update("norm", 1.0)
    assert policy.credit()["decay"] == {"reward": 0.0, "pulls": 0.0}
    assert policy.credit()["norm"] == {"reward": 1.0, "pulls": 5.0}


def test_fixed_weights_are_kept_whatever_is_earned() -> None:
    policy = make_policy(MetaSettings("fixed", weights={"decay": 2.0, "write": 0.0}), ARMS)
    for _ in range(20):
        policy.update("write", 1.0)
    assert policy.probabilities({}) == pytest.approx({"decay": 2 / 3, "write": 0.0, "norm": 1 / 3})
    assert policy.probabilities({}, ["write"]) == {"decay": 0.0, "write": 1.0, "norm": 0.0}


# From one search to the next


def taught(kind: str) -> Posterior:
    policy = make_policy(MetaSettings(kind), ARMS)
    for number in range(60):
        policy.update(ARMS[number % 3], float(number % 3 == 1), ("off",))
    return policy.posterior()


@pytest.mark.parametrize("kind", POLICIES)
def test_a_posterior_survives_a_file_and_is_discounted(kind: str) -> None:
    parts = MappingProxyType({"decay": "off"})  # as a space may give them
    posterior = replace(taught(kind), measured=(Measured(parts, 8, 3.5),))
    assert Posterior.from_json(json.loads(json.dumps(posterior.to_json()))) == posterior
    policy = make_policy(MetaSettings(kind, prior_weight=0.25), ARMS, posterior)
    for arm, known in policy.credit().items():
        assert known["pulls"] == pytest.approx(0.25 * posterior.cells[arm,][0])
        assert known["reward"] == pytest.approx(float(arm == "write"))


@pytest.mark.parametrize("kind", ["ducb", "swucb", "thompson"])
def test_a_search_begins_with_what_an_earlier_one_has_learned(kind: str) -> None:
    settings = MetaSettings(kind, prior_weight=1.0)
    chances = make_policy(settings, ARMS, taught(kind)).probabilities({})
    assert max(chances, key=lambda arm: chances[arm]) == "write" and chances["write"] > 0.8
    assert make_policy(settings, ARMS).probabilities({}) == pytest.approx(dict.fromkeys(ARMS, 1 / 3), abs=0.1)


def test_operators_that_are_not_there_any_more_are_left_out_and_new_ones_tried() -> None:
    policy = make_policy(MetaSettings(prior_weight=1.0), ("write", "new"), taught("ducb"))
    assert policy.credit().keys() == {"write", "new"}
    assert policy.probabilities({}) == {"write": 0.0, "new": 1.0}


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"measured": []},
        {"cells": [], "measured": [{"parts": {"decay": "off"}, "step": 8}]},
        {"cells": [], "measured": [{"parts": {"decay": "off"}, "step": 8, "bits_per_byte": float("nan")}]},
        [{"cell": ["decay"]}],
        [{"cell": [], "pulls": 1, "sum": 0}],
        [{"cell": ["decay"], "pulls": 1, "sum": 2}],
        [{"cell": ["decay"], "pulls": "many", "sum": 2}],
        [{"cell": ["decay"], "pulls": float("nan"), "sum": 0}],
    ],
)
def test_a_damaged_posterior_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="it is no posterior"):
        Posterior.from_json(values)
