"""A search's journal in a store: the local file is the truth of who runs it, and its lines follow there in pieces.

Pieces are numbered, and created, never overwritten: so the order in which they stand is the order in which they were
written, whatever the clocks of the machines say. Of two drivers of one search only one can create the next piece; the
other learns of it by that, and ends. The first line of a piece says whose it is and at which byte of the journal it
begins; what follows are lines of the journal.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError
from nas.journal import Journal, JournalError
from nas.store import Store, StoreError

Say = Callable[[str], None]

DRIVER = "driver.json"
_FOLDER = "journal"
_OURS = ".driver"  # in the search's folder: who ran it from there
_PIECE_SECONDS = 1.0  # at most one piece in so many: what a lost machine takes with it
_PIECE_BYTES = 4 * 2**20
_BEAT_SECONDS = 5.0
_WATCH_SECONDS = 3 * _BEAT_SECONDS
_LONGEST_PAUSE = 30.0  # between attempts to reach a store
_PATIENCE = 60.0  # for what is left at the end


class Taken(UserError):
    """Another driver runs this search. The message is one sentence."""


@dataclass(frozen=True)
class Copy:
    """How much of a journal a store has: pieces, and bytes of the journal in them."""

    pieces: int = 0
    size: int = 0


def read(store: Store) -> tuple[bytes, int]:
    """(the journal, in how many pieces it is) of a search's folder in a store.

    Raises:
      StoreError: also if a piece is missing or damaged.
    """
    names = store.names(_FOLDER)
    if names != [_name(number) for number in range(len(names))]:
        raise StoreError(f"the journal in {store.url}/{_FOLDER} has a gap: restore the pieces that were removed")
    lines, size = [], 0
    for name, piece in zip(names, store.get_all([f"{_FOLDER}/{name}" for name in names]), strict=True):
        head, _, body = piece.partition(b"\n")
        try:
            begins = json.loads(head)["from"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{store.url}/{_FOLDER}/{name} is damaged: restore it") from error
        if begins != size:
            raise StoreError(f"{store.url}/{_FOLDER}/{name} does not follow on the one before: restore them")
        lines.append(body)
        size += len(body)
    return b"".join(lines), len(names)


def fetch(store: Store, path: Path, say: Say, watch_seconds: float = _WATCH_SECONDS) -> Copy:
    """Brings a local journal up to what the store has of it; a local one may also be ahead.

    Raises:
      Taken: if its driver still runs somewhere else.
      StoreError: if the store can't be read.
      JournalError: if the two have different lines, or it can't be written here.
    """
    _refuse_if_driven(store, path.parent, say, watch_seconds)
    there, pieces = read(store)
    here = path.read_bytes() if path.exists() else b""
    whole = here[: here.rfind(b"\n") + 1]  # what follows was torn by a kill
    if not there.startswith(whole) and not whole.startswith(there):
        line = next(
            n for n, (a, b) in enumerate(zip(there.split(b"\n"), whole.split(b"\n"), strict=False), 1) if a != b
        )
        raise JournalError(
            f"{path} and its copy in {store.url} differ from line {line} on, since it was gone on with elsewhere: move "
            "the folder away, and resume fetches what the store has"
        )
    if len(there) > len(whole):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if here else "wb") as file:
                file.truncate(len(whole))
                file.seek(len(whole))
                file.write(there[len(whole) :])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(f"the journal {path} can't be written: {error.strerror}") from error
    return Copy(pieces, len(there))


def _refuse_if_driven(store: Store, folder: Path, say: Say, watch_seconds: float) -> None:
    """Looks whether what its driver leaves changes: no clock but ours enters that.

    One that ran in this very folder is known to be gone by the lock of the journal, sooner.
    """
    seen = store.get(DRIVER)
    if seen is None or _driver(seen).get("driver") == _ours(folder):
        return
    say(f"watching {store.url} for {watch_seconds:g} s: does the search's last driver still run?")
    deadline = time.monotonic() + watch_seconds
    while time.monotonic() < deadline:
        time.sleep(min(1.0, watch_seconds / 10))
        now = store.get(DRIVER)
        if now is None:
            return
        if now != seen:
            host = _driver(now).get("host", "another machine")
            raise Taken(f"another driver, on {host}, runs the search in {store.url}: wait for it or stop it")


def _driver(content: bytes) -> dict[str, str]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _ours(folder: Path) -> str | None:
    try:
        return (folder / _OURS).read_text(encoding="utf-8")
    except OSError:
        return None


def _name(number: int) -> str:
    return f"{number:08d}.jsonl"


class Mirror:
    """Has a store follow a journal, from one background thread: nothing that happens there holds up `append`.

    Args:
      store: the search's folder in it.
      copy: how much of it is there, by `fetch`.
      say: tells the person; called from the thread too.
    """

    def __init__(self, store: Store, journal: Journal, copy: Copy, say: Say):
        self.taken: str | None = None  # why this driver has to end
        self._store, self._journal, self._say = store, journal, say
        self._pieces, self._sent = copy.pieces, copy.size
        self._driver = uuid.uuid4().hex
        self._beats, self._next_beat = 0, 0.0
        self._troubled = False
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def missing(self) -> int:
        """Bytes of the journal that the store has not yet."""
        return self._journal.size - self._sent

    def claim(self) -> None:
        """Makes this the driver of the search, for whoever looks.

        Raises:
          Taken: if another one was faster, or has a search of this name.
          StoreError: if the store can't be written.
        """
        self._create(b"")
        self._beat()
        with suppress(OSError):  # it only spares the next driver from here a look at the store
            (self._journal.path.parent / _OURS).write_text(self._driver, encoding="utf-8")

    def start(self, ended: Callable[[str], None]) -> None:
        """Begins to follow.

        Args:
          ended: called from the thread, with a sentence, once another driver has taken the search over.
        """
        # A daemon: a store that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._follow, args=(ended,), name="journal-mirror", daemon=True)
        self._thread.start()

    def close(self, patience: float = _PATIENCE) -> int:
        """Waits until the store has all of it, not longer than `patience` seconds, and lets go of the search.

        Returns how many bytes are missing, and says so.
        """
        self._closing.set()
        if self._thread is None:  # claimed, and never begun
            with suppress(StoreError):
                self._store.remove(DRIVER)
        else:
            began = told = time.monotonic()
            while self._thread.is_alive() and (now := time.monotonic()) < began + patience:
                self._thread.join(0.1)
                if now > told + 5:
                    told = now
                    share = f"{self._sent:,} of {self._journal.size:,} bytes"
                    self._say(f"waiting for the store: it has {share} of the journal, {now - began:.0f} s gone")
            self._abandoned.set()
        if self.missing and not self.taken:
            self._say(
                f"{self.missing:,} bytes of the journal are not in {self._store.url} yet: "
                f"nas search resume={self._journal.path.parent} brings them there"
            )
        return self.missing

    def _follow(self, ended: Callable[[str], None]) -> None:
        pause = _PIECE_SECONDS
        while not self._abandoned.is_set():
            closing = self._closing.wait(pause)
            if self._abandoned.is_set():
                return
            try:
                self._send_rest()
                if closing and not self.missing:
                    self._store.remove(DRIVER)
                    return
                self._beat()
                pause = _PIECE_SECONDS
                if self._troubled:
                    self._troubled = False
                    self._say(f"{self._store.url} has caught up with the journal")
            except Taken as taken:
                self.taken = str(taken)
                ended(self.taken)
                return
            except (StoreError, OSError) as error:
                if not self._troubled:
                    self._troubled = True
                    self._say(f"{error}; the search goes on, its journal is here, and the store will catch up")
                pause = min(2 * pause, _LONGEST_PAUSE)
                if closing:
                    self._abandoned.wait(_PIECE_SECONDS)

    def _send_rest(self) -> None:
        """Sends what the journal has more, in pieces that end with a line."""
        with self._journal.path.open("rb") as file:
            while self.missing and not self._abandoned.is_set():
                file.seek(self._sent)
                piece = file.read(min(self.missing, _PIECE_BYTES))
                if not piece.endswith(b"\n"):
                    whole = piece.rfind(b"\n") + 1
                    piece = piece[:whole] if whole else piece + file.readline()
                self._create(piece)

    def _create(self, lines: bytes) -> None:
        head = json.dumps({"driver": self._driver, "from": self._sent}).encode()
        if not self._store.create(self._next_piece, head + b"\n" + lines):
            there, _, lines = (self._store.get(self._next_piece) or b"").partition(b"\n")
            if there != head:  # else it is our own: it had arrived, and the answer was lost
                raise self._taken()
        self._pieces += 1
        self._sent += len(lines)

    @property
    def _next_piece(self) -> str:
        return f"{_FOLDER}/{_name(self._pieces)}"

    def _taken(self) -> Taken:
        url = self._store.url
        if not self._pieces:
            return Taken(f"there is a search in {url}: go on with resume={url}, or choose another name=")
        return Taken(
            f"another driver has gone on with the search in {url}: what this one had not brought there by then is in "
            f"{self._journal.path} alone"
        )

    def _beat(self) -> None:
        """Shows that this driver lives, now and then, and looks whether another one has begun."""
        if time.monotonic() >= self._next_beat:
            if self._store.has(self._next_piece):
                raise self._taken()
            self._beats += 1
            self._next_beat = time.monotonic() + _BEAT_SECONDS
            alive = {"driver": self._driver, "host": os.uname().nodename, "beats": self._beats}
            self._store.put(DRIVER, json.dumps(alive).encode())
