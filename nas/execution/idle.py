"""A worker that trains nothing: what Tune's loop costs by itself, measured by `nas.scaling`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from nas.execution.tune import start  # before Ray is imported: it settles Ray's environment
from nas.execution.worker import TrialWorker
from nas.sandbox import Message


class IdleWorker(TrialWorker):
    """Tells of every rung of its trial, and then of its outcome, as fast as it is asked. It needs no box."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def cleanup(self) -> None:
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._certificate = None
        self._messages = _told(json.loads(config["spec"]), config["trial"])


def _told(spec: dict[str, Any], trial: str) -> Iterator[Message]:
    number = int(trial[1:])
    cost = {"gate_seconds": 0.0, "train_seconds": 0.0, "total_seconds": 0.0}
    measured: dict[str, Any] = {}
    for rung in spec["rungs"]:
        bits = 3.0 + 1 / rung + (number * 7919 % 1000) / 1000
        measured = {
            "step": rung,
            "bits_per_byte": bits,
            "stderr": 0.01,
            "learning_rate": 0.008,
            "train_seconds": 0.0,
            "tokens_per_second": 1e5,
            "peak_bytes": 2**30,
            "flops_per_token": 3e5,
            "params": 10**6,
        }
        yield {"rung": measured, "cost": cost}
    outcome = {"kind": "fitness", "score": -measured["bits_per_byte"], "probes": {}}
    outcome |= {name: value for name, value in measured.items() if name != "train_seconds"}
    yield {"outcome": outcome, "cost": cost}


@contextmanager
def room_for(workers: int) -> Iterator[None]:
    """A Ray of our own on this machine that takes so many workers, however few cores there are."""
    start(workers)
    try:
        yield
    finally:
        ray.shutdown()
