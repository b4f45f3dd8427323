"""The process that contained children are forked from: everything imported, nothing initialised.

Importing JAX and Flax takes seconds, forking a process that has them takes milliseconds. The zygote never runs a line
of candidate code itself: it imports, forks, waits and cleans up after one child at a time. It ends with its parent.

Run as `python -m nas.sandbox.zygote FD MODULE...`, with FD the control socket.
"""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import psutil

from nas.sandbox.wire import receive_message, send_message

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WAIT_SECONDS = 0.02


def main(arguments: list[str]) -> None:
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    # So that a descendant which made itself a daemon can still be found and killed: orphans become ours.
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    for module in arguments[1:]:
        importlib.import_module(module)
    send_message(control, {"ready": True})
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _serve_one(control)


def _serve_one(control: socket.socket) -> None:
    """Forks one child for one request and reports its end. Raises EOFError when the parent is gone."""
    _, descriptors, *_ = socket.recv_fds(control, 1, 2)
    request = receive_message(control)
    result, log = descriptors
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        control.close()
        _run_child(request, result, log)
    os.close(result)
    os.close(log)
    try:
        send_message(control, {"pid": pid})
        status, usage = _wait(pid, control)
    finally:
        kill_descendants()
    send_message(
        control,
        {"exit": os.waitstatus_to_exitcode(status), "peak_bytes": usage.ru_maxrss * 1024},
    )


def _wait(pid: int, control: socket.socket) -> tuple[int, resource.struct_rusage]:
    """Waits for the child, or for the parent's end."""
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage
        readable, _, _ = select.select([control], [], [], _WAIT_SECONDS)
        if readable:  # nothing is sent while a child runs: the parent has closed its side
            raise EOFError


def _run_child(request: dict[str, Any], result: int, log: int) -> NoReturn:
    """In the child: limits on, then the named function, then out, by `_exit` whatever happens."""
    try:
        _process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Ray kills the children of a worker that it ends
        os.setsid()
        _redirect(log)
        _limit(request["limits"])
        os.chdir(request["scratch"])
        os.environ.update(HOME=request["scratch"], TMPDIR=request["scratch"])
        with os.fdopen(result, "w") as pipe:
            send = _sender(pipe)
            try:
                send({"result": _resolve(request["function"])(request["arguments"], send)})
            except MemoryError:
                send({"crashed": {"cause": "memory", "reason": "it ran out of the memory it may use"}})
            except BaseException as error:  # SystemExit and KeyboardInterrupt too: candidates raise what they like
                cause = "memory" if "RESOURCE_EXHAUSTED" in str(error) else "raised"
                send({"crashed": {"cause": cause, "reason": traceback.format_exc(limit=-12)}})
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _sender(pipe: Any) -> Callable[[dict[str, Any]], None]:
    def send(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    return send


def _resolve(name: str) -> Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def _redirect(log: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)


def _limit(limits: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)
    cpu_seconds = int(limits["seconds"] * max(1, os.cpu_count() or 1)) + 10
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    if limits["address_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (limits["address_bytes"],) * 2)
    # When the machine runs out of memory the kernel should end a candidate, not Ray.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _process_control(option: int, value: int) -> None:
    """Linux's `prctl`; nothing elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_descendants(patience: float = 5.0) -> None:
    """Kills every process below this one, and those that they start meanwhile."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        living = psutil.Process().children(recursive=True)
        if not living:
            return
        for process in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1:])
