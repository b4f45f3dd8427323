"""The front against its slow definition, and the volume against what can be counted."""

import random

import pytest

from nas.pareto import Point, front


def point(name: str, *values: float, baseline: bool = False) -> Point:
    return Point(name, *values, baseline=baseline)


def slow_front(points: list[Point]) -> list[str]:
    """Whoever is beaten by nobody: as good in all three, and better in one."""
    rows = {p.trial: (p.bits_per_byte, p.flops_per_token, p.state_bytes) for p in points}

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return [name for name, row in rows.items() if not any(beats(other, row) for other in rows.values())]


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_slow_definition(seed: int) -> None:
    rng = random.Random(seed)
    points = [  # few values: ties, and points that are the same
        point(f"t{n}", rng.randrange(5) / 4, 2.0 ** rng.randrange(5), 2.0 ** rng.randrange(5), baseline=n % 3 == 0)
        for n in range(rng.randrange(1, 40))
    ]
    found = front(points)
    assert found and list(found.trials) == slow_front(points)
    assert found.hypervolume >= found.of_baselines > 0


BASELINES = [point("a", 2.0, 1024.0, 256.0, baseline=True), point("b", 3.0, 512.0, 128.0, baseline=True)]


def test_the_volume_is_that_beyond_the_baselines() -> None:
    found = front(BASELINES)
    assert found and list(found.trials) == ["a", "b"]
    assert found.of_baselines == found.hypervolume == pytest.approx(1.1 * 0.1 * 0.1 + 0.1 * 1.1 * 1.1 - 0.1**3)
    worse = front([*BASELINES, point("c", 3.5, 4096.0, 4096.0)])
    assert worse and worse.hypervolume == found.hypervolume and "c" not in worse.trials
    better = front([*BASELINES, point("d", 2.0, 512.0, 128.0)])
    assert better and list(better.trials) == ["d"] and better.hypervolume == pytest.approx(1.1**3)


def test_one_baseline_is_enough_and_none_is_not() -> None:
    alone = front([point("a", 2.0, 1024.0, 0.0, baseline=True)])
    assert alone and list(alone.trials) == ["a"] and alone.hypervolume == pytest.approx(1.1**3)
    assert front([point("a", 2.0, 1024.0, 0.0)]) is None and front([]) is None


def test_the_order_of_the_points_changes_nothing_but_the_order() -> None:
    rng = random.Random(0)
    points = [point(f"t{n}", rng.random(), 1 + rng.random(), 1 + rng.random(), baseline=n < 4) for n in range(20)]
    whole = front(points)
    turned = front(points[::-1])
    assert whole and turned and list(whole.trials) == list(turned.trials)[::-1]
    assert whole.hypervolume == pytest.approx(turned.hypervolume)
