"""Batches that are there when the step wants them.

A batch is a function of (training seed, step) alone, whichever way it comes: from tokens that lie on the accelerator,
which is sent nothing but where the windows start, or from the memory-mapped file, gathered by a thread while the step
before is computed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nas.devices import ONE, Devices
from nas.settings import TrainSettings
from nas.tasks.reader import let_go

_MOST_INDEXED = 2**31  # tokens: what the windows' positions are counted in has 31 bits


class Feed:
    """The windows of one training: `for windows in feed(range(0, steps, count))`.

    Args:
      data: the training tokens [tokens], in memory or memory-mapped.
      settings: seed, batch and time.
      count: steps of one dispatch.
      resident: whether the tokens are put on the device; what is fed is the same.
      devices: each gets its share of every batch; of tokens that are resident it has all.
    """

    def __init__(self, data: np.ndarray, settings: TrainSettings, count: int, resident: bool, devices: Devices = ONE):
        self._data, self._settings, self._count = data, settings, count
        self._shared = devices.shared(axis=1)
        self._resident = jax.device_put(np.asarray(data), devices.whole) if resident else None
        self._gather = jax.jit(
            lambda data, starts: data[starts[..., None] + jnp.arange(settings.time + 1)],
            **devices.placed(devices.whole, self._shared, outputs=self._shared),
        )
        let_go(data)

    def __call__(self, firsts: Sequence[int]) -> Iterator[Any]:
        """Windows of steps first, ..., first + count - 1 for each of `firsts`: tokens [count, batch, time + 1]."""
        if not firsts:
            return
        if self._resident is not None:
            for first in firsts:
                starts = window_starts(len(self._data), self._settings, first, self._count)
                yield self._gather(self._resident, starts.astype(np.int32))
            return
        with ThreadPoolExecutor(1) as thread:
            ahead = [thread.submit(self._read, first) for first in firsts[:1]]
            for following in [*firsts[1:], None]:
                windows = ahead.pop().result()
                if following is not None:
                    ahead.append(thread.submit(self._read, following))
                yield windows

    def _read(self, first: int) -> Any:
        windows = batches(self._data, self._settings, first, self._count)
        let_go(self._data)
        return jax.device_put(windows, self._shared)


def is_resident(data: np.ndarray, device_bytes: int) -> bool:
    """Whether tokens are to lie on the device: on an accelerator, if they have no more than so many bytes."""
    return jax.default_backend() != "cpu" and data.nbytes <= device_bytes and len(data) < _MOST_INDEXED


def batches(data: np.ndarray, settings: TrainSettings, first: int, count: int) -> np.ndarray:
    """Windows for steps first, ..., first + count - 1: tokens [count, batch, time + 1]. A function of (seed, step)."""
    starts = window_starts(len(data), settings, first, count)
    return data[starts[..., None] + np.arange(settings.time + 1)]


def window_starts(tokens: int, settings: TrainSettings, first: int, count: int) -> np.ndarray:
    """Where the windows of these steps start in so many tokens: int64 [count, batch]."""
    return np.stack(
        [
            np.random.default_rng((settings.seed, step)).integers(0, tokens - settings.time, settings.batch)
            for step in range(first, first + count)
        ]
    )


def held_out_windows(data: np.ndarray, count: int, time: int) -> np.ndarray:
    """`count` windows spread evenly over the split: tokens [count, time + 1]."""
    starts = np.linspace(0, len(data) - (time + 1), count).astype(np.int64)
    return data[starts[:, None] + np.arange(time + 1)]
