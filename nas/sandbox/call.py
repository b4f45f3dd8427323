"""One contained call, seen from the engine: its messages, its limits, its end."""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from nas.sandbox.usage import Limits, beyond_disk, beyond_memory_or_tasks, kill_tree
from nas.sandbox.wire import receive_message

Message: TypeAlias = dict[str, Any]

_MESSAGE_BYTES = 16 * 2**20  # a message larger than this is not one of ours,
_MESSAGES, _ALL_BYTES = 10_000, 256 * 2**20  # nor are so many,
_DIGITS = 20  # nor a whole number of so many
_PRINTED_BYTES = 16 * 2**20
_CAUSES = ("raised", "memory")  # of a crash, that a child may give
_POLL_SECONDS, _DISK_SECONDS, _LINGER_SECONDS = 0.1, 1.0, 10.0


@dataclass(frozen=True)
class Child:
    """A process that was just forked, and what was open or known before it ran.

    Attributes:
      pid: None if it has ended already.
      zygote: the process that everything of this call is below.
      reader: the pipe that its messages come from.
      output: what it prints, open for reading; it belongs to this call from `output_start` on.
      scratch: its own folder, which had `disk_start` bytes.
    """

    pid: int | None
    zygote: int
    reader: int
    output: int
    output_start: int
    scratch: Path
    disk_start: int


class Call:
    """One contained call, from fork to exit."""

    def __init__(self, child: Child, control: socket.socket, limits: Limits):
        self.exited = False
        self._child = child
        self._control = control
        self._limits = limits
        self._buffer = bytearray()
        self._messages = self._bytes = 0
        self._contained = False
        self._deadline = time.monotonic() + limits.seconds
        self._disk_looked_at = self._paused_at = time.monotonic()
        self._poll = select.poll()  # not select: a busy engine has more descriptors than that takes
        for descriptor in (child.reader, control.fileno()):
            self._poll.register(descriptor, select.POLLIN)

    def messages(self) -> Iterator[Message]:
        """The child's messages until the one that ends the call, which is always there and always last."""
        last: Message | None = None
        for message in self._received():
            if "result" in message or "crashed" in message:
                last = message
                break
            self._pause()
            yield message
            self._resume()
        peak_bytes, exit_code, broken = self._await_exit()
        yield {**(broken or last or self._verdict_of_exit(exit_code)), "peak_bytes": peak_bytes}

    def give_notice(self) -> None:
        """SIGTERM to the child."""
        if self._child.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._child.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kills the child with its descendants and waits for the zygote to say so."""
        kill_tree(self._child.pid)
        self._await_exit()

    def close(self) -> None:
        os.close(self._child.reader)
        os.close(self._child.output)

    def _pause(self) -> None:
        """Stops the child while nobody waits for it: whether it goes on may be under decision."""
        self._paused_at = time.monotonic()
        self._signal(signal.SIGSTOP)

    def _resume(self) -> None:
        self._signal(signal.SIGCONT)
        self._deadline += time.monotonic() - self._paused_at

    def _signal(self, number: signal.Signals) -> None:
        if self._child.pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _received(self) -> Iterator[Message]:
        """Messages as they come, until the child has ended or had to be ended."""
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll(1000 * _POLL_SECONDS)}
            if self._child.reader in ready:
                piece = os.read(self._child.reader, 1 << 16)
                self._buffer += piece
                if not piece:
                    return
                try:
                    yield from self._complete_lines()
                except (ValueError, RecursionError) as error:
                    kill_tree(self._child.pid)
                    yield crashed("killed", f"it sent a message that is not one of the engine's: {error}")
                    return
            elif ready:  # it has exited, and everything it wrote has been read
                return
            if broken := self._broken_limit():
                kill_tree(self._child.pid)
                yield broken
                return

    def _complete_lines(self) -> Iterator[Message]:
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._messages += 1
            self._bytes += len(line)
            if self._messages > _MESSAGES or self._bytes > _ALL_BYTES:
                raise ValueError(f"{self._messages:,} of them, {self._bytes:,} bytes in all")
            # What is no number arrives as None.
            message = json.loads(line, parse_int=_whole, parse_constant=lambda name: None)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            if "contained" in message:
                self._contained = True
            else:
                yield self._known_crash(message) if "crashed" in message else message
        if len(self._buffer) > _MESSAGE_BYTES:
            raise ValueError(f"longer than {_MESSAGE_BYTES:,} bytes")

    def _known_crash(self, message: Message) -> Message:
        """A crash as words. Once contained, a child can't say any more that it was the machine's fault."""
        crash = message["crashed"]
        if not isinstance(crash, dict) or not all(isinstance(crash.get(key), str) for key in ("cause", "reason")):
            raise ValueError("a crash without cause and reason")
        if crash["cause"] not in _CAUSES and (self._contained or crash["cause"] != "infrastructure"):
            raise ValueError("a crash of an unknown cause")
        return crashed(crash["cause"], crash["reason"])

    def _broken_limit(self) -> Message | None:
        limits, child, now = self._limits, self._child, time.monotonic()
        if now > self._deadline:
            return crashed("timeout", f"it did not finish within {limits.seconds:g} s")
        if os.fstat(child.output).st_size - child.output_start > _PRINTED_BYTES:
            return crashed("killed", f"it printed more than {_PRINTED_BYTES:,} bytes")
        broken = beyond_memory_or_tasks(child.zygote, limits)
        if now > self._disk_looked_at + _DISK_SECONDS:
            broken = broken or beyond_disk(child.zygote, limits, child.scratch, child.disk_start)
            self._disk_looked_at = time.monotonic()  # a look takes its time
        return crashed(*broken) if broken else None

    def _await_exit(self) -> tuple[int, int, Message | None]:
        """(peak resident bytes, exit code, a limit that it broke meanwhile).

        From the zygote, which first clears away what the child left running. One that has said its last word, or closed
        its pipe, and runs on is killed after a while.
        """
        if self.exited:
            return 0, 0, None
        broken: Message | None = None
        patience = time.monotonic() + _LINGER_SECONDS
        try:
            while not self._zygote_speaks():
                if (broken := self._broken_limit()) or time.monotonic() > patience:
                    kill_tree(self._child.pid)
                    break
            self._control.settimeout(_LINGER_SECONDS)
            ended = receive_message(self._control)
            self._control.settimeout(None)
        except (OSError, EOFError):
            return 0, -signal.SIGKILL, broken
        self.exited = True
        return ended["peak_bytes"], ended["exit"], broken

    def _zygote_speaks(self) -> bool:
        self._poll.unregister(self._child.reader)
        try:
            return bool(self._poll.poll(1000 * _POLL_SECONDS))
        finally:
            self._poll.register(self._child.reader, select.POLLIN)

    def _verdict_of_exit(self, exit_code: int) -> Message:
        tail = self._last_output()
        if any(sign in tail for sign in ("bad_alloc", "MemoryError", "RESOURCE_EXHAUSTED", "out of memory")):
            return crashed("memory", "it ran out of the memory it may use")
        how = f"signal {_name_of_signal(-exit_code)}" if exit_code < 0 else f"exit code {exit_code}"
        return crashed("killed", f"its process ended with {how} and no result: {tail[-500:].strip()}")

    def _last_output(self, size: int = 4000) -> str:
        """The end of what this call printed."""
        output = self._child.output
        start = max(self._child.output_start, os.fstat(output).st_size - size)
        return os.pread(output, size, start).decode("utf-8", "replace")


def crashed(cause: str, reason: str) -> Message:
    return {"crashed": {"cause": cause, "reason": reason}}


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return str(number)
