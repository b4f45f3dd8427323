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


def searched() -> tuple[list[float], dict[int, int]]:
    """Seconds of CPU of each trial, asked for and told; trials -> bytes of memory by then."""
    tripwire = TripwireSettings(least_leap=100.0)
    settings = replace(make_settings("foresight", tripwire, trials=TRIALS, islands=3), seed=1)
    search = Search(settings, FakeSpace(values=10**6), lambda event: None)
    worker, seconds, memory = Worker(search), [], {}
    while True:
        if len(seconds) in (1_000, TRIALS // 2):
            memory[len(seconds)] = psutil.Process().memory_info().rss
        started = time.process_time()
        if (assignment := search.ask()) is None:
            break
        for step in worker.steps(assignment):
            step()
        seconds.append(time.process_time() - started)
    memory[len(seconds)] = psutil.Process().memory_info().rss
    return seconds, memory


def test_ten_thousand_trials_cost_the_same_each_and_memory_that_grows_evenly() -> None:
    """By the default policy, on three islands, in a process of its own: medians of a hundred trials."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, memory = pool.submit(searched).result()
    at_first, at_last = statistics.median(seconds[50:150]), statistics.median(seconds[-100:])
    assert at_last < 2 * at_first, f"{1e3 * at_first:.2f} ms a trial at 100 trials, {1e3 * at_last:.2f} ms at the end"
    (few, early), (half, middle), (whole, end) = sorted(memory.items())
    assert end < GIB
    # Tables double as they grow, so it comes in steps; memory that grew with the square would give 2.5.
    assert end - middle < 2 * (middle - early) * (whole - half) / (half - few), memory
