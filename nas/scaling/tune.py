"""What Ray Tune costs: a real Ray here, the real searcher, journal and scheduler, and workers that train nothing.

The driver's CPU for a result, less what the searcher, the scheduler and the journal take of it, is Tune's own.
A thousand workers do not fit on one machine: of what a turn of the loop takes with some numbers of them, the part that
grows with the workers is a line through these.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from nas.commands.folder import Folder
from nas.commands.search import assigned_spec
from nas.execution.idle import IdleWorker, room_for
from nas.execution.tune import run
from nas.garbage import collect_seldom
from nas.journal import Event, Journal
from nas.search import Assignment, Search
from nas.settings import Settings
from nas.space import SearchSpace
from nas.tasks.prepared import Corpus
from nas.trial import TrialSpec


@dataclass(frozen=True)
class Loop:
    """A search of `trials` by Tune on `workers` that train nothing.

    Attributes:
      results: that Tune took: rungs and ends.
      seconds: from the first result to the last.
      cpu: of the driver in that time, `ours` of it in calls of this engine.
      bytes_per_trial: by which the driver grew.
    """

    workers: int
    trials: int
    results: int
    seconds: float
    cpu: float
    ours: float
    bytes_per_trial: float

    @property
    def per_second(self) -> float:
        return self.results / self.seconds

    @property
    def turn(self) -> float:
        """Seconds of CPU that are Tune's and Ray's, for each result."""
        return max(0.0, self.cpu - self.ours) / self.results


def loop(settings: Settings, space: SearchSpace, workers: int, trials: int, folder: Path) -> Loop:
    """Runs such a search, in a process as a driver's. Starts and ends a Ray of its own.

    Raises:
      UserError: if Ray does not start.
    """
    collect_seldom()
    execution = replace(settings.execution, address="local", workers=workers, cpus_per_trial=1)
    settings = replace(settings, execution=execution, search=replace(settings.search, trials=trials))
    journal = Journal(folder / f"tune-{workers}.jsonl")
    told: list[tuple[float, float, float, int]] = []  # at each result: by the clock, CPU, ours of it, memory
    ours = [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_in_time(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                ours[0] += time.thread_time() - began

        return call_in_time

    def record(event: Event) -> None:
        journal.append(event)
        if event["event"] in ("rung", "trial"):
            told.append((time.perf_counter(), time.process_time(), ours[0], psutil.Process().memory_info().rss))

    search = Search(settings, space, record)
    for name in ("ask", "tell", "tell_rung"):
        setattr(search, name, timed(getattr(search, name)))
    corpus = Corpus("simulated", "0" * 64, str(folder), {}, 8.0, 0.0)

    def spec(assignment: Assignment) -> TrialSpec:
        return assigned_spec(assignment, search, settings, space, corpus, Folder(folder))

    with room_for(workers):
        run(search, timed(spec), [], {}, folder / "ray.log", say=print, worker=IdleWorker)
    journal.close()
    first, last = told[len(told) // 4], told[-1 - workers]  # without the workers' start and end
    seconds, cpu, own, grown = (later - earlier for earlier, later in zip(first, last, strict=True))
    results = len(told) - len(told) // 4 - 1 - workers
    ended = len(search.trials) * results / len(told)
    return Loop(workers, len(search.trials), results, seconds, cpu, own, grown / ended)


def line(loops: Sequence[Loop]) -> tuple[float, float]:
    """Of a turn: seconds of CPU whatever the number of workers, and those for each. Neither is negative; 0 of none."""
    if not loops:
        return 0.0, 0.0
    count = len(loops)
    mean_workers, mean_turn = sum(one.workers for one in loops) / count, sum(one.turn for one in loops) / count
    square = sum((one.workers - mean_workers) ** 2 for one in loops)
    slope = sum((one.workers - mean_workers) * (one.turn - mean_turn) for one in loops) / square if square else 0.0
    slope = max(slope, 0.0)
    return max(0.0, mean_turn - slope * mean_workers), slope
