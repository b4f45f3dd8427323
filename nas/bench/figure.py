"""One measured number, and a stopwatch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number. `goal` in words, empty if there is none."""

    name: str
    value: float
    unit: str
    goal: str = ""


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Gives what says how many seconds the block has taken, or takes so far."""
    started = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - started
    ended.append(time.perf_counter())
