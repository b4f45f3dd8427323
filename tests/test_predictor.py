"""The model that chooses among possible children."""

import random

import pytest
from fakes import make_settings, simulate, start

from nas.meta import Measured, make_policy
from nas.predictor import Predictor
from nas.settings import MetaSettings

EFFECTS = {
    "decay": {"off": 0.0, "fixed": -0.1, "learned": -0.3},
    "norm": {"off": 0.0, "l2": -0.2},
    "gate": {"off": 0.0, "on": 0.1},
}


def genome(rng: random.Random) -> dict[str, str]:
    return {slot: rng.choice(list(parts)) for slot, parts in EFFECTS.items()}


def bits(parts: dict[str, str]) -> float:
    return 3.0 + sum(EFFECTS[slot][part] for slot, part in parts.items())


def taught(trials: int, seed: int, noise: float = 0.05) -> Predictor:
    predictor, rng = Predictor(), random.Random(seed)
    for number in range(trials):
        parts, stopped = genome(rng), number % 3 == 0
        worth = bits(parts) + 0.8 * stopped + rng.gauss(0, noise)
        predictor.learn(Measured(parts, 64 if stopped else 256, worth))
    return predictor


def test_what_has_helped_is_chosen_again() -> None:
    """Although a third was stopped early, with bits per byte that do not compare."""
    right = 0
    for seed in range(100):
        rng = random.Random(1000 + seed)
        possible = [genome(rng) for _ in range(4)]
        chosen = possible[taught(40, seed).ranked(possible, rng)[0]]
        right += bits(chosen) == min(map(bits, possible))
    assert right > 80


def test_a_part_that_was_never_tried_is_tried_now_and_then() -> None:
    known, new = {"decay": "fixed", "norm": "l2", "gate": "off"}, {"decay": "new", "norm": "l2", "gate": "off"}
    chosen = [taught(30, 0).ranked([known, new], random.Random(seed))[0] for seed in range(200)]
    assert 20 < sum(chosen) < 180


def test_with_little_known_or_nothing_to_choose_the_first_is_taken() -> None:
    rng = random.Random(0)
    possible = [genome(rng) for _ in range(5)]
    assert Predictor().ranked(possible, rng)[0] == 0 and taught(3, 0).ranked(possible, rng)[0] == 0
    assert taught(30, 0).ranked(possible[:1], rng)[0] == 0


def test_the_same_draws_give_the_same_choice() -> None:
    possible = [genome(random.Random(seed)) for seed in range(6)]
    for seed in range(20):
        first, second = (taught(10, 3).ranked(possible, random.Random(seed))[0] for _ in range(2))
        assert first == second


def test_equal_scores_are_no_reason_to_fail() -> None:
    predictor = Predictor()
    for _ in range(10):
        predictor.learn(Measured({"decay": "off"}, 256, 3.0))
    assert predictor.ranked([{"decay": "off"}, {"decay": "on"}], random.Random(0))[0] in (0, 1)


def test_a_part_that_helps_beside_one_other_alone_is_put_in_there() -> None:
    """Gates that help with unit keys and harm without them: no sum of what each part is worth says this."""
    predictor, rng = Predictor(), random.Random(0)
    for _ in range(40):
        parts = genome(rng)
        worth = bits(parts) - 0.4 * ((parts["gate"] == "on") == (parts["norm"] == "l2"))
        predictor.learn(Measured(parts, 256, worth + rng.gauss(0, 0.02)))
    for norm, gate in (("l2", "on"), ("off", "off")):
        possible = [{"decay": "learned", "norm": norm, "gate": one} for one in ("off", "on")]
        chosen = [possible[predictor.ranked(possible, random.Random(seed))[0]]["gate"] for seed in range(50)]
        assert chosen.count(gate) > 40


def test_what_another_search_has_measured_counts_by_its_differences_and_less() -> None:
    earlier = [Measured(one.parts, one.step, one.bits_per_byte + 5.0) for one in taught(60, 0).measured()]
    possible = [{"decay": decay, "norm": "l2", "gate": "off"} for decay in EFFECTS["decay"]]

    def chosen(weight: float, own: int) -> list[int]:
        predictor = Predictor()
        predictor.start_from(earlier, weight)
        for one in taught(own, 1).measured():
            predictor.learn(one)
        assert len(predictor.measured()) == own
        return [predictor.ranked(possible, random.Random(seed))[0] for seed in range(100)]

    assert chosen(1.0, 2).count(2) > 80, "with too few of its own"
    assert chosen(0.0, 2).count(0) == 100, "which count for nothing alone"
    assert chosen(0.1, 2).count(2) < chosen(1.0, 2).count(2)


def test_a_choice_takes_no_longer_when_much_is_known() -> None:
    assert len(taught(600, 0).measured()) == len(taught(300, 0).measured()) < 300


# The policy that looks ahead


def test_an_operator_is_as_likely_as_its_best_child_is_to_be_the_best() -> None:
    policy = make_policy(MetaSettings("foresight", floor=0.1), ("decay", "norm", "gate"))
    foreseen = {"decay": [1.0, 3.0, 1.0, 1.0], "norm": [2.0, 2.0, 2.0, 2.0]}
    chances = policy.probabilities({}, foreseen=foreseen)
    assert chances == pytest.approx({"decay": 0.1 / 3 + 0.9 * 0.75, "norm": 0.1 / 3 + 0.9 * 0.25, "gate": 0.1 / 3})
    assert policy.probabilities({}, ["norm", "gate"], foreseen=foreseen)["decay"] == 0


def test_what_can_not_be_foreseen_is_left_to_the_bandit() -> None:
    foresight, bandit = (make_policy(MetaSettings(kind), ("decay", "norm")) for kind in ("foresight", "ducb"))
    for policy in (foresight, bandit):
        policy.update("decay", 1.0)
        policy.update("norm", 0.0)
    assert foresight.probabilities({"norm": 1}) == bandit.probabilities({"norm": 1})


def test_what_is_foreseen_of_an_operator_is_that_of_its_best_child() -> None:
    predictor = taught(40, 0, noise=0.01)
    bad, good = {"decay": "off", "norm": "off", "gate": "on"}, {"decay": "learned", "norm": "l2", "gate": "off"}
    found = predictor.foresee({"one": [bad], "two": [bad, good], "none": []}, 16, random.Random(0))
    assert found.keys() == {"one", "two"} and all(len(draws) == 16 for draws in found.values())
    assert all(two < one for one, two in zip(found["one"], found["two"], strict=True))
    assert Predictor().foresee({"one": [bad]}, 16, random.Random(0)) == {}


def test_a_search_by_foresight_is_the_same_again_and_logs_its_probabilities() -> None:
    first, second = (start(make_settings("foresight", trials=30)) for _ in range(2))
    for search, _ in (first, second):
        simulate(search, workers=2)
    assert first[1] == second[1]
    asked = [event for event in first[1] if event["event"] == "ask" and event["purpose"] == "search"]
    assert all(event["weights"][event["candidate"]["operator"]] == event["probability"] > 0 for event in asked)
