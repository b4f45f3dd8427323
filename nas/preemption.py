"""Notice that a machine is about to be taken away. It arrives as SIGTERM: each process is told by the one that runs it.

`python -m nas.preemption SECONDS` gives it to every trial on this machine and waits until they have written where they
are. It is for whoever learns of it first: a container's preStop hook, a cloud's shutdown script.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil

_RAY, _ZYGOTE = "ray::", "nas.sandbox.zygote"  # how command lines begin, and a word of them


class Preempted(Exception):
    """A trial ended because its machine is taken away: it goes on elsewhere, from its checkpoint.

    Args:
      noticed: whether the engine's own process was told; else only what it contains says so.
    """

    def __init__(self, noticed: bool):
        super().__init__(noticed)
        self.noticed = noticed

    def __str__(self) -> str:
        return "its machine is being taken away"


class Notice:
    """Whether this process has had SIGTERM since. To be made in its main thread.

    Attributes:
      given: then what is worth keeping should be written within seconds.
    """

    def __init__(self) -> None:
        self.given = False
        signal.signal(signal.SIGTERM, self._take)

    def _take(self, number: int, frame: Any) -> None:
        self.given = True


def workers() -> Iterator[psutil.Process]:
    """The processes of this machine that run trials: Ray's, with a zygote of ours below."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            of_ray = " ".join(process.cmdline()).startswith(_RAY)
            if of_ray and any(_ZYGOTE in below.cmdline() for below in process.children()):
                yield process


def give_notice(seconds: float) -> int:
    """Tells all trials of this machine, and waits up to `seconds` until each has ended. Returns how many there were."""
    contained: list[psutil.Process] = []
    for worker in workers():
        with suppress(psutil.Error):
            contained += _contained(worker)
            worker.terminate()
    psutil.wait_procs(contained, timeout=seconds)
    return len(contained)


def _contained(worker: psutil.Process) -> Iterator[psutil.Process]:
    """The processes of its trial: they lead sessions of their own, below the zygote's, which outlives them."""
    for process in worker.children(recursive=True):
        with suppress(psutil.Error, OSError):
            if process.ppid() != worker.pid and os.getsid(process.pid) == process.pid:
                yield process


if __name__ == "__main__":
    began = time.monotonic()
    count = give_notice(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
    print(f"{count} trials were told; {time.monotonic() - began:.1f} s")
