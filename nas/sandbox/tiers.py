"""Which containment this machine gives, found out by trying it.

bubblewrap   its own namespaces: no network, no other process, nothing mounted but libraries; and all of the next
landlock     files by Landlock, system calls by seccomp; and all of the next
limits       time, memory, processes, file size; no wall around files or the network
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.errors import UserError
from nas.sandbox import landlock, paths, seccomp

TIERS = ("bubblewrap", "landlock", "limits")
_PROBE_SECONDS = 20.0


class SandboxError(UserError):
    """Candidates can't be contained as asked. The message is one sentence that says what to do."""


@functools.cache
def missing(tier: str) -> str | None:
    """Why `tier` does not work here, in words; None where it does."""
    if tier == "bubblewrap":
        return _missing_bubblewrap()
    if tier == "landlock":
        if refusal := seccomp.unavailable():
            return refusal
        return None if landlock.version() else "this kernel has no Landlock (Linux 5.13 or later, and not turned off)"
    return None


def choose(tier: str) -> str:
    """The tier to use where `tier` is asked for; "auto" is the best of bubblewrap and landlock.

    Raises:
      SandboxError: if it does not work here.
    """
    if tier != "auto":
        if reason := missing(tier):
            raise SandboxError(f"sandbox={tier} does not work here: {reason}; `nas doctor` says what does")
        return tier
    for best in TIERS[:-1]:
        if missing(best) is None:
            return best
    raise SandboxError(
        f"this machine can't contain candidates: no bubblewrap ({missing('bubblewrap')}), no Landlock "
        f"({missing('landlock')}); install bubblewrap, or, for candidates that you trust, say sandbox=limits"
    )


def warning(tier: str) -> str | None:
    """What a person must be told at each start under this tier."""
    if tier != "limits":
        return None
    return (
        "sandbox=limits: candidates run under process limits alone; one that is hostile can read your files and use "
        "the network"
    )


def bubblewrap_command(modules: Iterable[str], writable: Path | None) -> list[str]:
    """The words before a command that run it in namespaces of its own.

    Args:
      modules: whose packages it may read.
      writable: the one folder that it can write to.
    """
    words = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--cap-drop", "ALL", "--as-pid-1", "--hostname", "box"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for device in paths.accelerators():
        words += ["--dev-bind-try", str(device), str(device)]
    for path in paths.readable_paths(modules):
        words += _bound(path)
    if writable is not None:
        words += ["--bind", str(writable), str(writable)]
    words += ["--chdir", "/"]
    # What is left is memory that nobody counts.
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]


def _bound(path: Path) -> list[str]:
    """Read-only at its own place; as the link that it is where it is one (`/lib` in many systems)."""
    if path.is_symlink():
        return ["--symlink", os.readlink(path), str(path)]
    return ["--ro-bind", str(path), str(path)]


def _missing_bubblewrap() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    if refusal := seccomp.unavailable():
        return refusal
    return _failure([*bubblewrap_command((), None), sys.executable, "-P", "-c", "import nas.sandbox.zygote"])


def _failure(command: Sequence[str]) -> str | None:
    """What a command that should succeed says instead."""
    try:
        environment = {"PYTHONPATH": os.pathsep.join(paths.import_roots(()))}
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its probe did not run: {error}"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else f"its probe ended with {done.returncode}")
