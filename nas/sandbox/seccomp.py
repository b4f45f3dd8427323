"""A filter on system calls that its process, and whatever that starts, can never take off again.

Landlock and namespaces decide which files and processes there are; this decides what can be asked of the kernel at all:
no sockets, no other programs, no new processes, no signals to others, no changes to a file's owner, mode or times
(which Landlock does not look at), no memory that nobody counts, none of the calls in which kernels have had their
holes. Everything else is allowed: a numerical library needs much of the rest.

Written as classic BPF (https://docs.kernel.org/userspace-api/seccomp_filter.html), so that no library is needed.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping, Sequence

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in `struct seccomp_data`
_CLONE_THREAD, _CLONE_NAMESPACES = 0x10000, 0x7E020000
_SHARED_ANONYMOUS, _STREAM = 0x21, 1

# Name -> (number on x86-64, number on AArch64); -1 where there is none.
_NETWORK = {
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "setsockopt": (54, 208),  # the buffers of a pair are memory that nobody counts
    "accept4": (288, 242),
}
_METADATA = {
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "utime": (132, -1),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utimes": (235, -1),
    "inotify_add_watch": (254, 27),
    "fchownat": (260, 54),
    "futimesat": (261, -1),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
    "fchmodat2": (452, 452),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
_OTHERS = {  # their memory, descriptors and pace
    "ptrace": (101, 117),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "tkill": (200, 130),
}
_KERNEL = {  # mounts, namespaces, modules, clocks, and what unprivileged code has no use for
    "modify_ldt": (154, -1),
    "pivot_root": (155, 41),
    "adjtimex": (159, 171),
    "chroot": (161, 51),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "syslog": (103, 116),
    "clock_settime": (227, 112),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "clock_adjtime": (305, 266),
    "setns": (308, 268),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # does on behalf of a process what the filter would not let it do
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl_fd": (443, 443),
    "open_tree_attr": (467, 467),
}
_UNCOUNTED_MEMORY = {  # memory in no process, and so in no limit
    "vmsplice": (278, 75),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}
_PROCESSES = {
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
}
_CLONE, _CLONE3 = {"clone": (56, 220)}, {"clone3": (435, 435)}
_MMAP, _SOCKETPAIR = {"mmap": (9, 222)}, {"socketpair": (53, 199)}
# Requests that let the kernel send another process a signal.
_FCNTL, _SET_OWNER = {"fcntl": (72, 25)}, (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_IOCTL, _SET_GROUP = {"ioctl": (16, 29)}, (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
# Calls that name a process first: allowed on oneself (0 or one's own id).
_ON_ITSELF = {
    "kill": (62, 129),
    "rt_sigqueueinfo": (129, 138),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "tgkill": (234, 131),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
    "sched_setattr": (314, 274),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH


def unavailable() -> str | None:
    """Why no filter can be installed here, in words; None where one can."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return f"there are no seccomp rules for {platform.system()} on {platform.machine()}"
    # A filter at address 0 is refused with EFAULT by a kernel that has filters, with EINVAL by one that has none.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, 0, 0, 0)
    return None if ctypes.get_errno() == errno.EFAULT else "this kernel has no seccomp filters"


def restrict(processes: bool) -> None:
    """Installs the filter on this process and all it will start.

    Args:
      processes: whether it may start processes and use shared memory, as an accelerator's compiler and driver do.

    Raises:
      OSError: if the kernel does not take it.
    """
    program = assemble(os.getpid(), processes)
    instructions = ctypes.create_string_buffer(program)
    # struct sock_fprog: the number of instructions, padding, their address.
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(header), 0, 0),
    ):
        if libc.prctl(option, *arguments) != 0:
            raise OSError(ctypes.get_errno(), "the filter of system calls could not be installed")


def assemble(own_pid: int, processes: bool) -> bytes:
    """The program: 8 bytes an instruction. A refused call fails with EPERM."""
    column, architecture = _MACHINES[platform.machine()]
    refused = {**_NETWORK, **_OTHERS, **_KERNEL, **_METADATA}
    if not processes:
        refused |= {**_UNCOUNTED_MEMORY, **_PROCESSES}
    code = [
        _load(_ARCHITECTURE),
        _jump(_EQUAL, architecture, then=1),
        _return(_KILL_PROCESS),
        _load(_NUMBER),
        _jump(_AT_LEAST, 0x40000000, otherwise=1),  # the x32 numbering of the same calls
        _return(_ERRNO | errno.EPERM),
        *_each(refused, column, [_return(_ERRNO | errno.EPERM)]),
        *_each(_ON_ITSELF, column, _if_equal(0, (0, own_pid), allowed=True)),
        *_each(_FCNTL, column, _if_equal(1, _SET_OWNER, allowed=False)),
        *_each(_IOCTL, column, _if_equal(1, _SET_GROUP, allowed=False)),
        # A datagram socket reaches others without connecting.
        *_each(_SOCKETPAIR, column, _if_equal(1, (_STREAM,), allowed=True, mask=0xF)),
        # glibc makes threads by clone3, and by clone where there is no clone3: only clone's flags can be looked at.
        *_each(_CLONE3, column, [_return(_ERRNO | errno.ENOSYS)]),
    ]
    if processes:
        code += _each(_CLONE, column, _if_any_bit(0, _CLONE_NAMESPACES, allowed=False))
    else:
        code += _each(_CLONE, column, _if_any_bit(0, _CLONE_THREAD, allowed=True))
        # Shared pages stay when the process lets go of them, in nobody's resident memory.
        code += _each(_MMAP, column, _if_equal(3, (_SHARED_ANONYMOUS,), allowed=False, mask=_SHARED_ANONYMOUS))
    return b"".join([*code, _return(_ALLOW)])


def _each(calls: Mapping[str, tuple[int, int]], column: int, then: list[bytes]) -> list[bytes]:
    """For each of `calls`: if it is this one, `then`, which ends in an answer."""
    numbers = [numbers[column] for numbers in calls.values() if numbers[column] >= 0]
    return [step for number in numbers for step in (_jump(_EQUAL, number, otherwise=len(then)), *then)]


def _if_equal(argument: int, values: Sequence[int], allowed: bool, mask: int = 0xFFFFFFFF) -> list[bytes]:
    """Allows, or refuses, the call if this argument, masked, is one of `values`; the other way round if not."""
    steps = [_load(_ARGUMENTS + 8 * argument), struct.pack("HBBI", _AND, 0, 0, mask)]
    for value in values:
        steps += [_jump(_EQUAL, value, otherwise=1), _answer(allowed)]
    return [*steps, _answer(not allowed)]


def _if_any_bit(argument: int, bits: int, allowed: bool) -> list[bytes]:
    """Allows, or refuses, the call if this argument has one of `bits`; the other way round if not."""
    load = _load(_ARGUMENTS + 8 * argument)
    return [load, _jump(_ANY_BIT, bits, otherwise=1), _answer(allowed), _answer(not allowed)]


def _answer(allowed: bool) -> bytes:
    return _return(_ALLOW if allowed else _ERRNO | errno.EPERM)


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", _LOAD, 0, 0, offset)


def _jump(how: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """Skips `then` instructions if it holds, else `otherwise`."""
    return struct.pack("HBBI", how, then, otherwise, value)


def _return(value: int) -> bytes:
    return struct.pack("HBBI", _RETURN, 0, 0, value)
