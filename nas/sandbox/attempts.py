"""Ways out of the box, each tried for real: what `nas doctor` and the tests run inside it.

`try_all` goes through them in one contained child and says which succeeded. Each takes the targets that the other side
has put up: a secret file, listeners, a process.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Targets = dict[str, Any]
Attempt = Callable[[Targets], None]

_NEW_USER_NAMESPACE, _PTRACE_SEIZE = 0x10000000, 0x4206
# Numbers on x86-64 and AArch64 alike but for ptrace.
_IO_URING_SETUP, _PTRACE = 425, {"x86_64": 101, "aarch64": 117}


def _read_a_file(targets: Targets) -> None:
    Path(targets["secret"]).read_bytes()


def _list_a_folder(targets: Targets) -> None:
    os.listdir(Path(targets["secret"]).parent)


def _write_a_file(targets: Targets) -> None:
    Path(targets["secret"]).with_suffix(".written").write_text("out")


def _write_to_the_engine(targets: Targets) -> None:
    """Into the engine's own package, which it may read."""
    planted = Path(__file__).with_name("planted.tmp")
    planted.write_text("out")
    planted.unlink()


def _change_a_mode(targets: Targets) -> None:
    os.chmod(targets["secret"], 0o600)


def _change_a_time(targets: Targets) -> None:
    os.utime(targets["secret"])


def _write_shared_memory(targets: Targets) -> None:
    planted = Path("/dev/shm", f"nas-{os.getpid()}")
    planted.write_text("out")
    planted.unlink()


def _read_the_environment(targets: Targets) -> None:
    """Its own, and that of every process that it can see."""
    seen = [str(dict(os.environ))]
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            seen.append(Path("/proc", entry, "environ").read_text())
    if targets["variable"] not in "".join(seen):
        raise PermissionError("not to be seen")


def _connect_by_tcp(targets: Targets) -> None:
    socket.create_connection(("127.0.0.1", targets["tcp"]), 2).sendall(b"out")


def _send_by_udp(targets: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"out", ("127.0.0.1", targets["udp"]))


def _connect_to_a_socket_file(targets: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(targets["unix"])


def _connect_to_an_abstract_socket(targets: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(targets["abstract"])


def _send_to_a_socket_file(targets: Targets) -> None:
    """By one end of a pair: no socket is made, and none is connected."""
    sender, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.sendto(b"out", targets["datagrams"])


def _listen(targets: Targets) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()


def _run_a_program(targets: Targets) -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True, timeout=20)


def _fork(targets: Targets) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _signal_another(targets: Targets) -> None:
    os.kill(targets["process"], signal.SIGCONT)


def _have_another_signalled(targets: Targets) -> None:
    """By naming it the owner of a descriptor that becomes ready."""
    reader, _ = socket.socketpair()
    fcntl.fcntl(reader, fcntl.F_SETOWN, targets["process"])


def _signal_its_parent(targets: Targets) -> None:
    os.kill(os.getppid(), signal.SIGCONT)


def _read_anothers_memory(targets: Targets) -> None:
    Path("/proc", str(targets["process"]), "maps").read_bytes()


def _trace_its_parent(targets: Targets) -> None:
    _system_call(_PTRACE[os.uname().machine], _PTRACE_SEIZE, os.getppid(), 0, 0)


def _ring(targets: Targets) -> None:
    """io_uring does on behalf of a process what filters would not let it do."""
    _system_call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(256))


def _new_namespace(targets: Targets) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _hide_memory(targets: Targets) -> None:
    os.memfd_create("hidden")


def _share_memory(targets: Targets) -> None:
    """Pages that stay when the process lets go of them."""
    mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


def _raise_a_limit(targets: Targets) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft + 1, hard + 1))


ATTEMPTS: dict[str, Attempt] = {
    "read a file of the person": _read_a_file,
    "list a folder of the person": _list_a_folder,
    "write a file outside its scratch folder": _write_a_file,
    "write into the engine's package": _write_to_the_engine,
    "change a file's mode": _change_a_mode,
    "change a file's time": _change_a_time,
    "write to shared memory": _write_shared_memory,
    "see a secret in an environment": _read_the_environment,
    "connect by TCP": _connect_by_tcp,
    "send by UDP": _send_by_udp,
    "connect to a socket file": _connect_to_a_socket_file,
    "connect to an abstract socket": _connect_to_an_abstract_socket,
    "send to a socket file": _send_to_a_socket_file,
    "listen on a port": _listen,
    "run a program": _run_a_program,
    "fork": _fork,
    "signal another process": _signal_another,
    "have another process signalled": _have_another_signalled,
    "signal the process that forked it": _signal_its_parent,
    "read another process' memory map": _read_anothers_memory,
    "trace the process that forked it": _trace_its_parent,
    "set up an io_uring": _ring,
    "make a namespace": _new_namespace,
    "hold memory that nobody counts": _hide_memory,
    "share memory with nobody": _share_memory,
    "raise a limit of its own": _raise_a_limit,
}
# What process limits alone hold.
HELD_BY_LIMITS = ("raise a limit of its own",)


def try_all(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    """Attempt -> "" where it succeeded, else what it met. Runs in the box."""
    return {name: _met(attempt, arguments) for name, attempt in ATTEMPTS.items()}


def _met(attempt: Attempt, targets: Targets) -> str:
    try:
        attempt(targets)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fill_memory(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    kept = []
    while True:
        kept.append(bytearray(50_000_000))


def run_on(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


def fill_memory_after_the_result(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    send({"result": 42})
    os.closerange(3, 256)
    fill_memory(arguments, send)


def fill_the_log(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    while True:
        os.write(1, bytes(10**5))


def fill_memory_with_the_pipe_open(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    send({"result": 42})
    fill_memory(arguments, send)


def fill_the_disk_with_deleted_files(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    kept = []
    for number in range(100):
        kept.append(open(str(number), "wb"))  # noqa: SIM115
        os.unlink(str(number))
        kept[-1].write(bytes(10**7))
    time.sleep(60)


def make_many_files(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    for number in range(10**7):
        os.mkdir(str(number))


def fill_the_disk(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    for number in range(10**6):
        Path(str(number)).write_bytes(bytes(10**6))


def _system_call(number: int, *arguments: Any) -> int:
    done: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done
