"""How many proposals are made ahead, and where jobs run."""

import threading
import time

import pytest

from nas.ahead import Pace, Threads


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("making", "interval", "depth"),
    [(0.1, 10.0, 2), (10.0, 10.0, 2), (30.0, 10.0, 4), (35.0, 10.0, 5), (900.0, 10.0, 8)],
)
def test_as_many_as_it_takes_for_no_worker_to_wait_and_no_more(making: float, interval: float, depth: int) -> None:
    clock = Clock()
    pace = Pace(8, clock)
    assert pace.depth() == 2, "while nothing was measured"
    for _ in range(40):
        pace.made(making)
        pace.taken()
        clock.now += interval
    assert pace.depth() == depth


def test_it_adapts_when_the_endpoint_becomes_slower() -> None:
    clock = Clock()
    pace = Pace(8, clock)
    depths = []
    for making in [1.0] * 10 + [40.0] * 10:
        pace.made(making)
        pace.taken()
        clock.now += 10
        depths.append(pace.depth())
    assert depths[9] == 2 and depths[-1] == 5 and sorted(depths) == depths


@pytest.mark.parametrize("workers_wait", range(1, 6))
def test_while_workers_wait_it_grows(workers_wait: int) -> None:
    """Hand-outs are then as frequent as proposals: one interval is a proposal's time over their number."""
    clock = Clock()
    pace = Pace(8, clock)
    for _ in range(40):
        pace.made(10.0)
        pace.taken()
        clock.now += 10.0 / workers_wait
    assert pace.depth() == workers_wait + 1


def test_so_many_jobs_at_a_time_in_order_and_none_after_the_end() -> None:
    stage, running, most, ended = Threads(2), [], [], []
    gate = threading.Event()

    def job() -> str:
        running.append(1)
        most.append(len(running))
        gate.wait(5)
        running.pop()
        return "made"

    for number in range(4):
        stage.begin(f"p{number}", job, lambda work, result: ended.append((work, result)))
    deadline = time.monotonic() + 10
    while len(running) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(running) == 2
    gate.set()
    stage.close()
    assert max(most) == 2 and {result for _, result in ended} == {"made"} and {"p0", "p1"} <= dict(ended).keys()
    with pytest.raises(RuntimeError):
        stage.begin("p4", job, lambda work, result: None)


def test_what_a_job_raises_is_its_result() -> None:
    stage, ended = Threads(1), []
    stage.begin("p0", lambda: 1 / 0, lambda work, result: ended.append(result))
    stage.close()
    assert [type(result) for result in ended] == [ZeroDivisionError]
