"""A trial's newest checkpoint in a store, so that it goes on from there on any machine.

What lies in a trial's folder was written by a candidate's process: only plain files are taken, no link is followed, and
what comes back is read in the box alone.
"""

import os
import re
import stat
import tarfile
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from nas.store import Store, StoreError

_MOST_BYTES = 8 * 2**30  # of a checkpoint: as many as its process may write
_STEP = re.compile(r"\d{8}")


class Shelf:
    """Where one trial's checkpoints are kept for other machines.

    Args:
      place: of the trial in the store.
      folder: of the trial here; `train/checkpoints` in it is as `nas.train.save` leaves it: NNNNNNNN/, NNNNNNNN.json.

    Attributes:
      trouble: why the last one is not in the store, in a sentence; None if it is, or is on its way.
    """

    def __init__(self, store: Store, place: str, folder: Path):
        self.trouble: str | None = None
        self._store, self._place, self._folder = store, place, folder
        self._checkpoints = folder / "train" / "checkpoints"
        self._lock = threading.Lock()
        self._waiting: str | None = None  # the step of one that is packed
        self._sender: threading.Thread | None = None

    def fetch(self) -> None:
        """Puts the store's newest checkpoint beside those here, unless one of them is as new.

        Raises:
          StoreError: if it can't be read, or written here.
        """
        there = _steps(self._store.names(self._place), ".tar")
        here = _steps([path.name for path in self._checkpoints.glob("*")])
        if not there or max(here, default="") >= there[-1]:
            return
        newest = there[-1]
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            if self._checkpoints.is_symlink():
                raise NotADirectoryError(f"{self._checkpoints} is a link")
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".fetched-") as beside:
                packed, unpacked = Path(beside, "packed.tar"), Path(beside, "unpacked")
                if not self._store.download(f"{self._place}/{newest}.tar", packed):
                    return  # a newer one took its place just now
                with tarfile.open(packed) as tar:
                    tar.extractall(unpacked, filter="data")
                for name in (f"{newest}.json", newest):  # the folder last: it says that all is there
                    (unpacked / name).rename(self._checkpoints / name)
        except (OSError, tarfile.TarError) as error:
            raise StoreError(f"the checkpoint {newest} of {self._store.url} can't be unpacked here: {error}") from error

    def keep(self, step: int) -> None:
        """Packs a checkpoint, and sends it from a thread. One that still waits to be sent gives way to a newer one."""
        name = f"{step:08d}"
        try:
            _pack(self._checkpoints, name, self._packed(name))
        except (OSError, tarfile.TarError) as error:
            self.trouble = f"the checkpoint of step {step} can't be packed for the store: {error}"
            return
        with self._lock:
            if self._waiting:
                self._packed(self._waiting).unlink(missing_ok=True)
            self._waiting = name
            if self._sender is None:
                # A daemon: a store that hangs cannot keep the process alive.
                self._sender = threading.Thread(target=self._send, name="checkpoints", daemon=True)
                self._sender.start()

    def keep_newest(self) -> None:
        """`keep` of the newest that is here, if there is one."""
        if here := _steps([path.name for path in self._checkpoints.glob("*")]):
            self.keep(int(here[-1]))

    def wait(self, seconds: float) -> None:
        """Until all is in the store, at most so long; what is not by then is `trouble`."""
        if (sender := self._sender) is not None:
            sender.join(seconds)
            if sender.is_alive():
                self.trouble = f"store={self._store.url} has not taken a checkpoint for {seconds:g} s"

    def _send(self) -> None:
        while True:
            with self._lock:
                name, self._waiting = self._waiting, None
                if name is None:
                    self._sender = None
                    return
            packed = self._packed(name)
            try:
                self._store.upload(packed, f"{self._place}/{name}.tar")
                for older in _steps(self._store.names(self._place), ".tar"):
                    if older < name:
                        self._store.remove(f"{self._place}/{older}.tar")
                self.trouble = None
            except (StoreError, OSError) as error:
                self.trouble = f"a checkpoint is on its own machine alone: {error}"
            finally:
                packed.unlink(missing_ok=True)

    def _packed(self, name: str) -> Path:
        """In the trial's own folder, where no contained process can write."""
        return self._folder / f".{name}.tar"


def trial_place(search: str, trial: str) -> str:
    """Of a search's trial in a store."""
    return f"searches/{search}/trials/{trial}"


def _steps(names: list[str], suffix: str = "") -> list[str]:
    """The steps of finished checkpoints, oldest first."""
    steps = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return sorted(step for step in steps if _STEP.fullmatch(step))


def _pack(checkpoints: Path, name: str, target: Path) -> None:
    """A tar of NAME/ and NAME.json, of their plain files alone."""
    left = _MOST_BYTES
    folder = os.open(checkpoints, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with tarfile.open(target, "w") as tar:
            left -= _add(tar, f"{name}.json", f"{name}.json", folder, left)
            for where, folders, files, inside in os.fwalk(name, dir_fd=folder):
                for each in folders:
                    entry = tarfile.TarInfo(f"{where}/{each}")
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
                for each in files:
                    left -= _add(tar, f"{where}/{each}", each, inside, left)
    finally:
        os.close(folder)


def _add(tar: tarfile.TarFile, path: str, name: str, folder: int, most: int) -> int:
    """Adds a file of an open folder if it is a plain one; returns its size.

    Raises:
      OSError: if it is larger than `most` bytes.
    """
    descriptor = -1
    with suppress(OSError):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    if descriptor < 0:
        return 0
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return 0
        if about.st_size > most:
            raise OSError(f"it has more than {_MOST_BYTES:,} bytes")
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = about.st_size, 0o644
        tar.addfile(entry, file)
        return about.st_size
