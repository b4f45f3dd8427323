"""The process that contained children are forked from: everything imported, nothing initialised.

Importing JAX and Flax takes seconds, forking a process that has them takes milliseconds. The zygote never runs a line
of candidate code itself: it imports, forks, waits and cleans up after one child at a time. It ends with its parent.

Run as `python -m nas.sandbox.zygote FD TIER MODULE...`, with FD the control socket; under the tier "bubblewrap" it is
the first process of its namespaces already.
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
from pathlib import Path
from typing import Any, NoReturn

import psutil

from nas.sandbox.confine import confine
from nas.sandbox.paths import readable_paths
from nas.sandbox.wire import receive_message, send_message

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_WAIT_SECONDS = 0.02
_EMPTY_LOOKS, _LOOK_SECONDS = 3, 0.003
_MOST_FILES = 16  # handed to one child


def main(arguments: list[str]) -> None:
    descriptor, tier, *modules = arguments
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    if tier == "bubblewrap":  # its parent is bubblewrap's own process, which has one thread: this signal is of a thread
        _process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _process_control(_PR_SET_DUMPABLE, 0)  # a child of the same user could look into it, and write
    # So that a descendant which made itself a daemon can still be found and killed: orphans become ours.
    _process_control(_PR_SET_CHILD_SUBREAPER, 1)
    for module in modules:
        importlib.import_module(module)
    readable = [str(path) for path in readable_paths(modules)]
    send_message(control, {"ready": True})
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _serve_one(control, tier, readable)


def _serve_one(control: socket.socket, tier: str, readable: list[str]) -> None:
    """Forks one child for one request and reports its end. Raises EOFError when the parent is gone."""
    _, descriptors, *_ = socket.recv_fds(control, 1, 2 + _MOST_FILES)
    request = receive_message(control)
    result, log, *files = descriptors
    request["arguments"]["files"] = dict(zip(request["files"], files, strict=True))
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        control.close()
        _run_child(request, result, log, tier, readable)
    for descriptor in descriptors:
        os.close(descriptor)
    try:
        send_message(control, {"pid": pid})
        status, usage = _wait(pid, control)
    finally:
        kill_descendants(alone=tier == "bubblewrap")
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


def _run_child(request: dict[str, Any], result: int, log: int, tier: str, readable: list[str]) -> NoReturn:
    """In the child: walls and limits up, then the named function, then out, by `_exit` whatever happens."""
    try:
        _process_control(_PR_SET_DUMPABLE, 1)  # its own files in /proc are its own again
        _process_control(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Ray kills the children of a worker that it ends
        os.setsid()
        _redirect(log)
        scratch = request["scratch"]
        os.chdir(scratch)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        with os.fdopen(result, "w") as pipe:
            send = _sender(pipe)
            try:
                confine(tier, request["limits"], Path(scratch), readable)
                send({"contained": True})
            except (OSError, ValueError) as error:
                send({"crashed": {"cause": "infrastructure", "reason": f"it could not be contained: {error}"}})
                os._exit(1)
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


def _process_control(option: int, value: int) -> None:
    """Linux's `prctl`; nothing elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def kill_descendants(alone: bool, patience: float = 5.0) -> None:
    """Kills every process below this one, and those that they start meanwhile.

    Args:
      alone: whether there is nothing in this process' namespace but itself and them.
    """
    deadline, seen_none = time.monotonic() + patience, 0
    while time.monotonic() < deadline and seen_none < _EMPTY_LOOKS:
        with contextlib.suppress(ProcessLookupError):
            if alone:
                os.kill(-1, signal.SIGKILL)  # all at once: none can start another meanwhile
        living = psutil.Process().children(recursive=True)
        seen_none = 0 if living else seen_none + 1  # one that forks and exits is gone between two looks
        for process in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if living or not alone:
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
