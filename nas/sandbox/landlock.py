"""Files by Landlock (https://docs.kernel.org/userspace-api/landlock.html): a process gives up all but what is listed.

Needs no privileges and no namespaces: Linux 5.13 or later. Later kernels also let it give up TCP, signals to others and
abstract sockets; what an older one cannot, the filter of system calls does.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_MAKE_DEVICES = 1 << 6 | 1 << 11
# Version of the interface -> bits of rights on files that it knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP = 0b11  # bind, connect: version 4
_SCOPES = 0b11  # abstract sockets, signals: version 6


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    found: int = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    return max(found, 0)


def restrict(readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path]) -> None:
    """From now on this process, and whatever it starts, can open nothing else. What is open stays open.

    Args:
      readable: files and folders to read and execute; those that do not exist are left out.
      writable: folders to do anything in but to make devices.
      devices: device files to read, write and control.

    Raises:
      OSError: if the kernel does not take a rule.
    """
    abi = version()
    everything = (1 << _RIGHTS[min(abi, max(_RIGHTS))]) - 1
    attributes = struct.pack("QQQ", everything, _TCP, _SCOPES)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, rights in (
            (readable, _READ),
            (writable, everything & ~_MAKE_DEVICES & ~_EXECUTE),
            (devices, _READ_FILE | _WRITE_FILE | _IOCTL),
        ):
            for path in paths:
                _allow(ruleset, path, rights & everything)
        libc = ctypes.CDLL(None)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which the kernel refuses
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.syscall(number, *arguments)
    if done < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return done
