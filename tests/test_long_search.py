"""A search of ten thousand trials: asking and telling take as long at the end as at the beginning."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context

import psutil
from fakes import FakeSpace, Worker, make_settings

from nas.search import Assignment, Search
from nas.settings import TripwireSettings
from nas.types import Certificate

TRIALS = 10_000
GIB = 2**30


def certified(assignment: Assignment) -> Certificate:
    return Certificate({"novelty": "new"}, 1e5, 1_000, 4096, {"flops": 1.0}, assignment.candidate.id)


@cache
def begun() -> tuple[Search, Worker]:
    """This process' search, by the default policy, on three islands."""
    tripwire = TripwireSettings(least_leap=100.0)
    settings = replace(make_settings("foresight", tripwire, trials=TRIALS, islands=3), seed=1)
    search = Search(settings, FakeSpace(values=10**6), lambda event: None)
    return search, Worker(search, certificate=certified)


def advanced(trials: int) -> tuple[float, int]:
    """Asks for so many more trials, looks up what each is sent, and tells them: seconds of CPU, bytes of memory."""
    search, worker = begun()
    started = time.process_time()
    for _ in range(trials):
        assignment = search.ask()
        assert assignment
        search.known_functions()
        search.reference_flops_per_token()
        for step in worker.steps(assignment):
            step()
    return time.process_time() - started, psutil.Process().memory_info().rss


def test_ten_thousand_trials_cost_the_same_each_and_memory_that_grows_evenly() -> None:
    """Medians of a hundred trials, around the 100th and at the end.

    Those around the 100th are of another search, which takes turns with the end of the long one: what else the machine
    does by then slows both.
    """
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as long, ProcessPoolExecutor(1, mp_context=spawn) as fresh:
        few, half, whole = 1_000, TRIALS // 2, TRIALS - 100
        small, middle, end = (long.submit(advanced, count).result()[1] for count in (few, half - few, whole - half))
        fresh.submit(advanced, 50).result()
        pairs = [[pool.submit(advanced, 1).result()[0] for pool in (fresh, long)] for _ in range(100)]
    at_first, at_last = map(statistics.median, zip(*pairs, strict=True))
    assert at_last < 2 * at_first, f"{1e3 * at_first:.2f} ms a trial at 100 trials, {1e3 * at_last:.2f} ms at the end"
    assert end < GIB
    # Tables double as they grow, so it comes in steps; memory that grew with the square would give 2.5.
    assert end - middle < 2 * (middle - small) * (whole - half) / (half - few), (small, middle, end)
