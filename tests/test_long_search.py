"""A search of ten thousand trials: asking and telling take as long at the end as at the beginning."""

import statistics
import time
import tracemalloc
from dataclasses import replace

from fakes import FakeSpace, Worker, make_settings

from nas.search import Search
from nas.settings import TripwireSettings

TRIALS = 10_000
MIB = 2**20


def test_ten_thousand_trials_cost_the_same_each_and_memory_that_grows_evenly() -> None:
    """Seconds of CPU for one trial asked for and told, medians of a hundred; memory of search and policy."""
    tripwire = TripwireSettings(least_leap=100.0)
    settings = replace(make_settings(tripwire=tripwire, trials=TRIALS, islands=3), seed=1)
    search = Search(settings, FakeSpace(values=10**6), lambda event: None)
    worker, seconds, memory = Worker(search), [], {}
    tracemalloc.start()
    while True:
        if len(seconds) in (100, TRIALS // 2):  # tracing slows Python down: not while the clock runs
            memory[len(seconds)] = tracemalloc.get_traced_memory()[0]
        started = time.process_time()
        if (assignment := search.ask()) is None:
            break
        for step in worker.steps(assignment):
            step()
        seconds.append(time.process_time() - started)
    memory[len(seconds)] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    at_first, at_last = statistics.median(seconds[50:150]), statistics.median(seconds[-100:])
    assert at_last < 2 * at_first, f"{1e3 * at_first:.2f} ms a trial at 100 trials, {1e3 * at_last:.2f} ms at the end"
    (_, early), (half, middle), (whole, end) = sorted(memory.items())
    assert end < 1024 * MIB
    assert end - middle < 1.5 * (middle - early) * (whole - half) / half, {k: v // MIB for k, v in memory.items()}
