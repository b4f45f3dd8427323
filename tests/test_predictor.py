"""The model that chooses among possible children."""

import random

from nas.predictor import Predictor

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
        predictor.learn(parts, 64 if stopped else 256, bits(parts) + 0.8 * stopped + rng.gauss(0, noise))
    return predictor


def test_what_has_helped_is_chosen_again() -> None:
    """Although a third was stopped early, with bits per byte that do not compare."""
    right = 0
    for seed in range(100):
        rng = random.Random(1000 + seed)
        possible = [genome(rng) for _ in range(4)]
        chosen = possible[taught(40, seed).best(possible, rng)]
        right += bits(chosen) == min(map(bits, possible))
    assert right > 80


def test_a_part_that_was_never_tried_is_tried_now_and_then() -> None:
    known, new = {"decay": "fixed", "norm": "l2", "gate": "off"}, {"decay": "new", "norm": "l2", "gate": "off"}
    chosen = [taught(30, 0).best([known, new], random.Random(seed)) for seed in range(200)]
    assert 20 < sum(chosen) < 180


def test_with_little_known_or_nothing_to_choose_the_first_is_taken() -> None:
    rng = random.Random(0)
    possible = [genome(rng) for _ in range(5)]
    assert Predictor().best(possible, rng) == 0 and taught(3, 0).best(possible, rng) == 0
    assert taught(30, 0).best(possible[:1], rng) == 0


def test_the_same_draws_give_the_same_choice() -> None:
    possible = [genome(random.Random(seed)) for seed in range(6)]
    for seed in range(20):
        first, second = (taught(10, 3).best(possible, random.Random(seed)) for _ in range(2))
        assert first == second


def test_equal_scores_are_no_reason_to_fail() -> None:
    predictor = Predictor()
    for _ in range(10):
        predictor.learn({"decay": "off"}, 256, 3.0)
    assert predictor.best([{"decay": "off"}, {"decay": "on"}], random.Random(0)) in (0, 1)
