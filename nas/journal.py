"""The truth of a search: an append-only file of events, one JSON object a line, on disk before anyone else hears of it.

Archive, meta-learner, MLflow and reports are rebuilt from it. Events: `search` (settings, corpus, versions), `ask` (a
trial was handed out), `rung` (a measurement on the way), `trial` (a trial ended), `resume`, `end`.
"""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.errors import UserError

Event = dict[str, Any]


class JournalError(UserError):
    """The journal can't be read or written. The message is one sentence that says what to do."""


class Journal:
    """Appends events. Holds a lock on the file, so that one search has one writer; the lock dies with the process.

    Raises:
      JournalError: if another process is writing it, or it can't be opened.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise JournalError(f"the journal {path} can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JournalError(
                f"another process is running the search in {path.parent}: wait for it or stop it"
            ) from error
        _drop_torn_line(path)

    def append(self, event: Mapping[str, Any]) -> Event:
        """Stamps, writes and syncs one event; returns it as written.

        Raises:
          JournalError: if the disk does not take it. What was written before stays whole.
        """
        stamped = {**event, "time": round(time.time(), 3)}
        line = json.dumps(stamped, allow_nan=False).encode() + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise JournalError(f"the journal {self.path} can't be written: {error.strerror}") from error
        return stamped

    def close(self) -> None:
        self._file.close()


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
            events.append(json.loads(line))
        except ValueError as error:
            raise JournalError(
                f"{path} is damaged at line {number}: restore that line, or cut the file before it"
            ) from error
    return events


def _drop_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
