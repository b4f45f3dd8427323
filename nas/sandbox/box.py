"""The engine's side of containment: one zygote, one contained call at a time, its messages, its limits, its end."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from nas.sandbox.wire import receive_message, send_message

Message: TypeAlias = dict[str, Any]

GIB = 2**30
_MESSAGE_BYTES = 16 * 2**20  # a message larger than this is not one of ours
_POLL_SECONDS = 0.1
_START_SECONDS = 120.0
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
_KEPT_PREFIXES = ("XLA_", "JAX_", "TPU_", "NVIDIA_")


@dataclass(frozen=True)
class Limits:
    """What one contained call may use.

    Attributes:
      seconds: wall-clock, less the time that the caller takes between messages.
      memory_bytes: resident memory of the child and all its descendants, watched from outside.
      address_bytes: address space (RLIMIT_AS), which stops a sudden allocation at once; 0 for none, as CUDA needs.
      file_bytes: largest file it may write.
    """

    seconds: float
    memory_bytes: int = 4 * GIB
    address_bytes: int = 0
    file_bytes: int = 2 * GIB


class Box:
    """Runs functions of the engine over candidate code in child processes of a warm, scrubbed zygote.

    Args:
      preload: modules that the zygote imports before its first fork.
      cpus: threads that a child's XLA may use.
    """

    def __init__(self, preload: Sequence[str] = (), cpus: int = 1):
        self._preload = tuple(preload)
        self._cpus = cpus
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the zygote, if it isn't there, without waiting until it is ready."""
        if self._zygote is not None and self._zygote.poll() is None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "nas.sandbox.zygote", str(theirs.fileno()), *self._preload],
                pass_fds=[theirs.fileno()],
                env=scrubbed_environment(os.environ, self._cpus),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is the engine's to handle
            )
        self._control = ours
        self._ready = False

    def run(self, function: str, arguments: Mapping[str, Any], scratch: Path, limits: Limits) -> Iterator[Message]:
        """Calls `function` ("module:name") with `(arguments, send)` in a contained child.

        Yields each message the child sends, the child paused until the next one is asked for. The last one is
        `{"result": ..., "peak_bytes": ...}` or `{"crashed": {"cause", "reason"}, "peak_bytes": ...}`. Closing the
        iterator kills the child and its descendants. What the child prints goes to `scratch/output.log`.
        """
        scratch = scratch.resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        try:
            self._wait_until_ready()
            call = self._begin(function, arguments, scratch, limits)
        except (OSError, EOFError) as error:
            self.close()
            yield _crashed("infrastructure", f"the containing process could not be started: {error}")
            return
        finished = False
        try:
            yield from call.messages()
            finished = True
        finally:
            if not finished:
                call.kill()
            call.close()
            if not call.exited:  # the zygote did not answer: it may be damaged, the next call starts a fresh one
                self.close()

    def close(self) -> None:
        """Ends the zygote and whatever it runs."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._zygote is not None:
            _kill_tree(self._zygote.pid)
            self._zygote.wait()
            self._zygote = None

    def _wait_until_ready(self) -> None:
        self.start()
        if not self._ready:
            assert self._control is not None
            self._control.settimeout(_START_SECONDS)
            receive_message(self._control)
            self._control.settimeout(None)
            self._ready = True

    def _begin(self, function: str, arguments: Mapping[str, Any], scratch: Path, limits: Limits) -> "_Call":
        assert self._control is not None
        reader, writer = os.pipe()
        log_path = scratch / "output.log"
        try:
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                socket.send_fds(self._control, [b"!"], [writer, log])
            finally:
                os.close(log)
            request = {
                "function": function,
                "arguments": dict(arguments),
                "scratch": str(scratch),
                "limits": asdict(limits),
            }
            send_message(self._control, request)
            pid = receive_message(self._control)["pid"]
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return _Call(pid, reader, self._control, limits, log_path)


class _Call:
    """One contained call, from fork to exit."""

    def __init__(self, pid: int, reader: int, control: socket.socket, limits: Limits, log_path: Path):
        self.exited = False
        self._pid = pid
        self._reader = reader
        self._control = control
        self._limits = limits
        self._log_path = log_path
        self._buffer = bytearray()
        self._log_start = log_path.stat().st_size
        self._deadline = time.monotonic() + limits.seconds
        self._paused_at = 0.0

    def messages(self) -> Iterator[Message]:
        """The child's messages until the one that ends the call, which is always there and always last."""
        last: Message | None = None
        for message in self._received():
            if "result" in message or "crashed" in message:
                last = last or message
            elif last is None:
                self._pause()
                yield message
                self._resume()
        peak_bytes, exit_code = self._await_exit()
        last = last or self._verdict_of_exit(exit_code)
        yield {**last, "peak_bytes": peak_bytes}

    def kill(self) -> None:
        """Kills the child with its descendants and waits for the zygote to say so."""
        _kill_tree(self._pid)
        self._await_exit()

    def close(self) -> None:
        os.close(self._reader)

    def _pause(self) -> None:
        """Stops the child while nobody waits for it: whether it goes on may be under decision."""
        self._paused_at = time.monotonic()
        self._signal(signal.SIGSTOP)

    def _resume(self) -> None:
        self._signal(signal.SIGCONT)
        self._deadline += time.monotonic() - self._paused_at

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _received(self) -> Iterator[Message]:
        """Messages as they come, until the child has ended or had to be ended."""
        while True:
            readable = select.select([self._reader, self._control.fileno()], [], [], _POLL_SECONDS)[0]
            if self._reader in readable:
                piece = os.read(self._reader, 1 << 16)
                self._buffer += piece
                if not piece:
                    return
                try:
                    yield from self._complete_lines()
                except ValueError as error:
                    _kill_tree(self._pid)
                    yield _crashed("killed", f"it sent a message that is not one of the engine's: {error}")
                    return
            elif readable:  # it has exited, and everything it wrote has been read
                return
            if time.monotonic() > self._deadline:
                _kill_tree(self._pid)
                yield _crashed("timeout", f"it did not finish within {self._limits.seconds:g} s")
                return
            if resident_bytes(self._pid) > self._limits.memory_bytes:
                _kill_tree(self._pid)
                limit = self._limits.memory_bytes / GIB
                yield _crashed("memory", f"it used more than the {limit:.1f} GiB it may use")
                return

    def _complete_lines(self) -> Iterator[Message]:
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            yield message
        if len(self._buffer) > _MESSAGE_BYTES:
            raise ValueError(f"longer than {_MESSAGE_BYTES} bytes")

    def _await_exit(self, patience: float = 10.0) -> tuple[int, int]:
        """Peak resident bytes and exit code, from the zygote, which first clears away what the child left running."""
        if self.exited:
            return 0, 0
        try:
            self._control.settimeout(patience)
            try:
                ended = receive_message(self._control)
            except TimeoutError:  # it closed its pipe and runs on
                _kill_tree(self._pid)
                ended = receive_message(self._control)
            self._control.settimeout(None)
        except (OSError, EOFError):
            return 0, -signal.SIGKILL
        self.exited = True
        return ended["peak_bytes"], ended["exit"]

    def _verdict_of_exit(self, exit_code: int) -> Message:
        tail = self.log_tail()
        if any(sign in tail for sign in ("bad_alloc", "MemoryError", "RESOURCE_EXHAUSTED", "out of memory")):
            return _crashed("memory", "it ran out of the memory it may use")
        how = f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
        return _crashed("killed", f"its process ended with {how} and no result: {tail[-500:].strip()}")

    def log_tail(self, size: int = 4000) -> str:
        """The end of what this call printed."""
        with self._log_path.open("rb") as file:
            file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace")


def scrubbed_environment(environment: Mapping[str, str], cpus: int) -> dict[str, str]:
    """What a zygote, and so a candidate, sees of the environment: no keys, no tokens, `cpus` threads for XLA."""
    kept = {
        name: value for name, value in environment.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    threads = {name: str(cpus) for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**kept, **threads, "PYTHONDONTWRITEBYTECODE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants; 0 if it is gone."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _kill_tree(pid: int) -> None:
    """Kills a process, its process group and its descendants."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.Error):
                process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _crashed(cause: str, reason: str) -> Message:
    return {"crashed": {"cause": cause, "reason": reason}}
