"""A search of ten thousand trials: asking and telling take as long at the end as at the beginning."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import psutil
from fakes import FakeSpace, Worker, make_settings

from nas.search import Search
from nas.settings import TripwireSettings

TRIALS = 10_000
GIB = 2**30


class Timed:
    """A search, its trials asked for and told one after the other."""

    def __init__(self) -> None:
        tripwire = TripwireSettings(least_leap=100.0)
        settings = replace(make_settings("foresight", tripwire, trials=TRIALS, islands=3), seed=1)
        self._search = Search(settings, FakeSpace(values=10**6), lambda event: None)
        self._worker = Worker(self._search)

    def trial(self) -> float:
        """Seconds of CPU that the next one takes."""
        started = time.process_time()
        assignment = self._search.ask()
        assert assignment
        for step in self._worker.steps(assignment):
            step()
        return time.process_time() - started


def searched() -> tuple[list[float], list[float], dict[int, int]]:
    """Seconds of CPU of a hundred trials around the 100th, and of the last hundred; trials -> bytes of memory by then.

    The first are those of a second search, which takes turns with the end of the long one: what else the machine does
    by then slows both.
    """
    long, memory = Timed(), {}
    for count in range(1, TRIALS - 100 + 1):
        long.trial()
        if count in (1_000, TRIALS // 2, TRIALS - 100):
            memory[count] = psutil.Process().memory_info().rss
    fresh = Timed()
    for _ in range(50):
        fresh.trial()
    early, late = zip(*((fresh.trial(), long.trial()) for _ in range(100)), strict=True)
    return list(early), list(late), memory


def test_ten_thousand_trials_cost_the_same_each_and_memory_that_grows_evenly() -> None:
    """By the default policy, on three islands, in a process of its own: medians of a hundred trials."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        early, late, memory = pool.submit(searched).result()
    at_first, at_last = statistics.median(early), statistics.median(late)
    assert at_last < 2 * at_first, f"{1e3 * at_first:.2f} ms a trial at 100 trials, {1e3 * at_last:.2f} ms at the end"
    (few, small), (half, middle), (whole, end) = sorted(memory.items())
    assert end < GIB
    # Tables double as they grow, so it comes in steps; memory that grew with the square would give 2.5.
    assert end - middle < 2 * (middle - small) * (whole - half) / (half - few), memory
