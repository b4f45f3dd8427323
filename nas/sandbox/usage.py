"""What a contained call may use, what it uses, seen from outside, and its end."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
_TASKS = 4096  # processes and threads together
_ENTRIES = 20_000  # files and folders


@dataclass(frozen=True)
class Limits:
    """What one contained call may use.

    Attributes:
      seconds: wall-clock, less the time that the caller takes between messages.
      memory_bytes: resident memory of the child and all its descendants, watched from outside.
      address_bytes: address space (RLIMIT_AS), which stops allocations that are never touched; 0 for none. A child
        that has an accelerator has none: its driver maps far more than it uses.
      file_bytes: largest file it may write.
      disk_bytes: all that it may add to its scratch folder, watched from outside.
      accelerator: whether it gets the accelerators' device nodes, if there are any. Their compilers are programs, so
        such a child may start processes; no other may.
    """

    seconds: float
    memory_bytes: int = 4 * GIB
    address_bytes: int = 128 * GIB
    file_bytes: int = 2 * GIB
    disk_bytes: int = 8 * GIB
    accelerator: bool = False


def beyond_memory_or_tasks(zygote: int, limits: Limits) -> tuple[str, str] | None:
    """(cause, reason) if the processes below `zygote` together use more than they may."""
    resident = tasks = 0
    for process in _below(zygote):
        with contextlib.suppress(psutil.Error):
            resident += process.memory_info().rss
            tasks += process.num_threads()
    if resident > limits.memory_bytes:
        return "memory", f"it used more than the {limits.memory_bytes / GIB:.1f} GiB it may use"
    if tasks > _TASKS:
        return "killed", f"it had more than {_TASKS:,} processes and threads"
    return None


def beyond_disk(zygote: int, limits: Limits, scratch: Path, at_first: int) -> tuple[str, str] | None:
    """(cause, reason) if the scratch folder has grown by more than it may, or holds too many files to look through."""
    size, entries = folder_size(scratch)
    if entries > _ENTRIES:
        return "killed", f"it made more than {_ENTRIES:,} files and folders"
    if size - at_first + _deleted_bytes(_below(zygote)) > limits.disk_bytes:
        return "killed", f"it wrote more than the {limits.disk_bytes / GIB:.1f} GiB it may write"
    return None


def folder_size(folder: Path) -> tuple[int, int]:
    """(bytes on disk, entries) of all that is in a folder, links not followed, as far as there is an end to it."""
    size, entries, left = 0, 0, [str(folder)]
    while left and entries <= _ENTRIES:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as found:
            for entry in found:
                entries += 1
                if entries > _ENTRIES:
                    break
                with contextlib.suppress(OSError):
                    size += 512 * entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return size, entries


def _deleted_bytes(processes: Iterable[psutil.Process]) -> int:
    """Of files that have no name any more and are still open."""
    size = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(descriptor.path)
                    size += 512 * found.st_blocks if stat.S_ISREG(found.st_mode) and not found.st_nlink else 0
    return size


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def pid_outside(ancestor: int, pid: int) -> int | None:
    """The id, here, of the descendant of `ancestor` that has the id `pid` in its namespace; None if it has ended."""
    for process in _below(ancestor):
        with contextlib.suppress(OSError, psutil.Error):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("NSpid:") and int(line.split()[-1]) == pid:
                    return process.pid
    return None


def kill_tree(pid: int | None) -> None:
    """Kills a process, its process group and its descendants."""
    if pid is None:
        return
    with contextlib.suppress(psutil.Error):
        for process in [*_below(pid), psutil.Process(pid)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def temporary_folder(prefix: str, within: Path | None = None) -> Iterator[Path]:
    """A new folder for scratch folders, gone at the end with whatever contained code made of it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError):  # folders nested by the thousand
            subprocess.run(["rm", "-rf", "--", str(folder)], check=False, stderr=subprocess.DEVNULL)
