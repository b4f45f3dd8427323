"""The driver alone: how many results it takes a second, each with the proposal that follows, early and late.

All of it is the real one (searcher, scheduler, grammar, journal); the trials are simulated, as in `nas.scaling`.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nas.bench.figure import Figure
from nas.scaling.driver import Costs, Fleet, simulated
from nas.settings import Settings, TrackingSettings
from nas.space import SearchSpace

AT = (100, 10_000)  # trials
_FLEET = Fleet(workers=8, train_seconds=300.0)
_OVER = 100  # trials that a pace is the mean of


def measure(settings: Settings, space: SearchSpace) -> Iterator[Figure]:
    """Of one search, from its first trial to its last."""
    search = replace(settings.search, trials=AT[-1] + _OVER)
    settings = replace(settings, search=search, tracking=TrackingSettings("none"))
    with tempfile.TemporaryDirectory() as folder:
        found = simulated(settings, space, _FLEET, Costs(), Path(folder))
    results = len(found.handled) / found.trials  # of each trial: its rungs, and its end
    for at in AT:
        near = found.handled[round(results * (at - _OVER / 2)) : round(results * (at + _OVER / 2))]
        if not near:  # it ran out of new candidates before
            continue
        pace = len(near) / results / sum(near)
        yield Figure(f"trials that the driver asks for and is told of, around the {at:,}th", pace, "a second")
    yield Figure("the driver's memory for a trial", (found.memory - found.memory_before) / found.trials / 2**10, "KiB")
