"""Work in the background, so that no accelerator waits for a proposer that takes its time.

How much of it there should be at once is a balance: a proposal made long before it is tried has not seen what was
learned meanwhile, and one that comes too late leaves a worker idle.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

_KEEP = 0.7  # of a running mean, per new value
_AT_FIRST = 2  # proposals ahead while nothing was measured

Done = Callable[[str, Any], None]


class Stage(Protocol):
    """Where jobs run."""

    def begin(self, work: str, job: Callable[[], Any], done: Done) -> None:
        """Runs `job`, some time, and calls `done` with the name and what it returned or the exception it raised."""
        ...

    def close(self) -> None:
        """Begins nothing more, and returns when nothing runs."""
        ...


class Threads:
    """So many jobs at a time, each in a thread, in the order in which they were begun."""

    def __init__(self, count: int):
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="ahead")

    def begin(self, work: str, job: Callable[[], Any], done: Done) -> None:
        def tell(future: Future[Any]) -> None:
            if not future.cancelled():
                done(work, future.exception() or future.result())

        self._pool.submit(job).add_done_callback(tell)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Pace:
    """How many proposals there should be, in the making or ready, for no worker to wait: the least such number.

    A proposal that takes `making` seconds has to be begun `making / interval` hand-outs before its own. One more
    stands ready, since both are means. While workers wait, hand-outs are only as frequent as proposals, and the number
    grows by one each time, up to `most`: so many trials may at most end between a proposal's draw and its own trial.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        self._most = most
        self._clock = clock
        self._making: float | None = None
        self._interval: float | None = None
        self._last: float | None = None

    def made(self, seconds: float) -> None:
        """A proposal took so long."""
        self._making = _mean(self._making, seconds)

    def taken(self) -> None:
        """A worker was given a proposal."""
        now = self._clock()
        if self._last is not None:
            self._interval = _mean(self._interval, now - self._last)
        self._last = now

    def depth(self) -> int:
        """Proposals that should be in the making or ready."""
        if self._making is None or self._interval is None:
            return min(_AT_FIRST, self._most)
        ahead = self._making / max(self._interval, 1e-3)
        return min(self._most, 1 + math.ceil(ahead - 1e-6))  # rounding is no reason for one more


def _mean(known: float | None, value: float) -> float:
    return value if known is None else _KEEP * known + (1 - _KEEP) * value
