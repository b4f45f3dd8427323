"""The compiled programs of a candidate's training, kept for its next one: other seeds, later searches.

Whoever can write a compile cache can run code in whatever reads it. So every candidate has a folder of its own, which
only processes that run this very candidate are given a copy of; rescoring compiles for itself.
"""

import hashlib
import os
import platform
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_NAME = "compiled"
_MOST_FILES = 64
_MOST_BYTES = 64 * 2**20  # of one candidate's programs; they have about half a megabyte on a CPU


def use(scratch: Path) -> None:
    """Has JAX read compiled programs from a contained process's folder, and write them there. Runs in the box."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(scratch / _NAME))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # their path would be part of every key
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def folder_of(root: Path, source: str) -> Path:
    """Where a candidate's programs are kept on this kind of machine. JAX itself tells shapes and versions apart."""
    depends_on = "\0".join([source, platform.machine(), *_processor()])
    return root / hashlib.sha256(depends_on.encode()).hexdigest()[:24]


def fetch(kept: Path, scratch: Path) -> None:
    """Gives a process that is about to train a copy of what is kept, if anything is."""
    if kept.is_dir() and not os.path.lexists(scratch / _NAME):
        with suppress(OSError):
            _copy(kept, scratch / _NAME)


def keep(scratch: Path, kept: Path) -> None:
    """Keeps what a process has compiled, in the place of what was kept before, and clears its folder.

    What can't be kept is compiled again: a full disk loses only this.
    """
    compiled = scratch / _NAME
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f"{kept.name}."))
        try:
            _copy(compiled, whole)
            if not _names(whole) <= _names(kept):
                shutil.rmtree(kept, ignore_errors=True)
                whole.rename(kept)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
    if not compiled.is_symlink():
        shutil.rmtree(compiled, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Copies the plain files of a folder that a candidate may have written: follows no link, and stops at a size."""
    target.mkdir(parents=True, exist_ok=True)
    folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        left = _MOST_BYTES
        for name in sorted(os.listdir(folder))[:_MOST_FILES]:
            with suppress(_NotPlain):
                content = _plain_content(name, folder, left)
                left -= len(content)
                (target / name).write_bytes(content)
    finally:
        os.close(folder)


class _NotPlain(Exception):
    """A link, a folder, a pipe, or larger than is taken."""


def _plain_content(name: str, folder: int, most: int) -> bytes:
    """Of a file in an open folder.

    Raises:
      _NotPlain
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise _NotPlain from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise _NotPlain
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> set[str]:
    """Of its files; none if there is no such folder. JAX's names are keys: the same name is the same program."""
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _processor() -> list[str]:
    """Its model and what it can do: machine code for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
