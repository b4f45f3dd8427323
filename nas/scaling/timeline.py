"""Virtual time with one driver in it, and how busy a fleet was. Pure."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Interval = tuple[float, float]  # in seconds, from when to when one accelerator worked


@dataclass
class Timeline:
    """What will happen, in order. Of two things at the same time the one that was put first comes first."""

    now: float = 0.0
    _waiting: list[tuple[float, int, Callable[[], Any]]] = field(default_factory=list)
    _put: int = 0

    def put(self, time: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._waiting, (time, self._put, what))
        self._put += 1

    def next(self) -> Callable[[], Any] | None:
        """What happens next, and the time it is then: that of the event, or now if it has waited for the driver."""
        if not self._waiting:
            return None
        time, _, what = heapq.heappop(self._waiting)
        self.now = max(self.now, time)
        return what

    def __len__(self) -> int:
        return len(self._waiting)


def busy_share(worked: Sequence[Interval], accelerators: int, start: float, end: float) -> float:
    """Share of the accelerators' time between `start` and `end` in which they worked. 0 for no time at all.

    Args:
      worked: by any of them; no one's intervals overlap.
    """
    seconds = sum(max(0.0, min(till, end) - max(since, start)) for since, till in worked)
    return seconds / (accelerators * (end - start)) if end > start else 0.0
