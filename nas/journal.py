"""The truth of a search: an append-only file of events, one JSON object a line, on disk before anyone else hears of it.

Archive, meta-learner, MLflow and reports are rebuilt from it. Events: `search` (settings, corpus, versions, machine),
`ask` (a trial was handed out), `noise` (how far seeds differ, measured or known), `rung` (a measurement on the way),
`lost` (a trial's worker was, and it goes on with another), `trial` (a trial ended), `guest` (another search's trial,
taken in), `notice` (of a collapse, or of a rung that does not carry over), `review` (a person's word on a held trial),
`verified` and `ablation` (of `nas verify`), `resume`, `end`.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.errors import UserError

Event = dict[str, Any]


class JournalError(UserError):
    """The journal can't be read or written. The message is one sentence that says what to do."""


class Journal:
    """Appends events, from any thread. Locks the file: one search has one writer, and the lock dies with its process.

    Args:
      secret: stands in no event: wherever it turns up "[key]" is written.

    Attributes:
      size: bytes of it that are on disk for good: whole lines.

    Raises:
      JournalError: if another process is writing it, or it can't be opened.
    """

    def __init__(self, path: Path, secret: str | None = None):
        self.path = path
        self._secret = secret
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # what the disk refused must not be written later, by `close`
        except OSError as error:
            raise JournalError(f"the journal {path} can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            held = isinstance(error, BlockingIOError)
            raise JournalError(
                f"another process is running the search in {path.parent}: wait for it or stop it"
                if held
                else f"the journal {path} can't be locked: {error.strerror}"
            ) from error
        self._lock = threading.Lock()
        self.size = _drop_torn_line(path)

    def append(self, event: Mapping[str, Any]) -> Event:
        """Stamps, writes and syncs one event; returns it as written.

        Raises:
          JournalError: if the disk does not take it. What was written before stays whole.
          ValueError: if a number in it is not finite.
        """
        with self._lock:
            stamped = {**event, "time": round(time.time(), 3)}
            text = json.dumps(stamped, allow_nan=False)
            if (kept := without_secret(text, self._secret)) != text:
                text, stamped = kept, json.loads(kept)
            line = memoryview(text.encode() + b"\n")
            end, size = os.fstat(self._file.fileno()).st_size, len(line)
            try:
                while line:  # a full disk takes the first part of a line
                    line = line[self._file.write(line) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                with suppress(OSError):  # a torn last line is dropped by whoever opens the file next
                    os.ftruncate(self._file.fileno(), end)
                raise JournalError(f"the journal {self.path} can't be written: {error.strerror}") from error
            self.size = end + size
            return stamped

    def close(self) -> None:
        self._file.close()


def without_secret(text: str, secret: str | None) -> str:
    """JSON text in which nobody can read `secret`: an endpoint can hide what it was sent in what it answers."""
    return text.replace(json.dumps(secret)[1:-1], "[key]") if secret else text


def read(path: Path) -> list[Event]:
    """All whole events, in order. A last line torn by a kill is left out.

    Raises:
      JournalError: if there is no journal, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise JournalError(f"there is no search to read at {path}: {error.strerror}") from error
    events = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn or empty
        try:
            events.append(_event(line))
        except ValueError as error:
            raise JournalError(
                f"{path} is damaged at line {number}: restore that line, or cut the file before it"
            ) from error
    return events


def _event(line: bytes) -> Event:
    event = json.loads(line)
    if not isinstance(event, dict) or "event" not in event:
        raise ValueError("no event")
    return event


def _drop_torn_line(path: Path) -> int:
    """The size of what is left."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return whole
