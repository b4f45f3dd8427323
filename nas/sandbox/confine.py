"""What a child gives up before it runs a line of candidate code. Nothing here can be taken back by it."""

import contextlib
import ctypes
import os
import resource
from pathlib import Path
from typing import Any

from nas.sandbox import landlock, paths, seccomp

_OPEN_FILES = 256  # each may be a file that is deleted and still fills the disk
_PR_CAPBSET_DROP, _CAPABILITY_VERSION_3 = 24, 0x20080522


def confine(tier: str, limits: dict[str, Any], scratch: Path, readable: list[str]) -> None:
    """Limits, and walls where the tier has them.

    Args:
      tier: "bubblewrap" (this process is in its namespaces already) | "landlock" | "limits".
      limits: `nas.sandbox.Limits` as a dict.
      scratch: the one folder that it keeps.
      readable: files and folders that it may still read, beside its own in `/proc`.

    Raises:
      OSError: if the kernel refuses: the child must then not go on.
    """
    accelerated = limits["accelerator"] and bool(paths.accelerators())
    _limit_resources(limits, address_space=not accelerated)
    _drop_capabilities()
    if tier == "limits":
        return
    if landlock.version():  # where bubblewrap works without it, the namespace holds this scratch folder alone
        devices = [*map(Path, paths.HARMLESS_DEVICES), *(paths.accelerators() if accelerated else [])]
        landlock.restrict([*map(Path, readable), *paths.facts_in_proc()], [scratch], devices)
    seccomp.restrict(processes=accelerated)


def _limit_resources(limits: dict[str, Any], address_space: bool) -> None:
    _at_most(resource.RLIMIT_CORE, 0)
    _at_most(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _at_most(resource.RLIMIT_CPU, int(limits["seconds"] * max(1, os.cpu_count() or 1)) + 10)
    if address_space:
        _at_most(resource.RLIMIT_NOFILE, _OPEN_FILES)
        _at_most(resource.RLIMIT_AS, limits["address_bytes"] or resource.RLIM_INFINITY)
    # When the machine runs out of memory the kernel should end a candidate, not Ray.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _at_most(which: int, value: int) -> None:
    """Lowers a limit for good; one that is lower already stays."""
    hard = resource.getrlimit(which)[1]
    lowest = min((limit for limit in (value, hard) if limit != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
    resource.setrlimit(which, (lowest, lowest))


def _drop_capabilities() -> None:
    """So that root in the child is nobody special; nothing happens where there are none."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):  # not Linux
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)())
