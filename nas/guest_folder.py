"""A folder in which searches leave records for each other. Only how they get there: what they are is `nas.guests`'s.

A record is one file, written once under a name of its own and never changed. It appears whole, by a rename; so nobody
locks anything, no clocks are compared, and a folder that several machines see will do.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nas.store import Store

_SUFFIX = ".json"
_MOST_BYTES = 2**20  # of a record


class SharedFolder:
    """One search's view of it.

    Args:
      known: names that `new` is not to give: they were taken before.
    """

    def __init__(self, path: Path, known: Iterable[str] = ()):
        self.path = path
        self._known = set(known)

    def publish(self, name: str, record: Mapping[str, Any]) -> None:
        """Leaves a record for the others, unless it is there.

        Args:
          name: no other search's, and of letters that a file's name may have; it begins with no dot.

        Raises:
          OSError: if the folder does not take it.
          ValueError: if a number in it is not finite.
        """
        self._known.add(name)
        file = self.path / f"{name}{_SUFFIX}"
        if file.exists():
            return
        text = json.dumps(record, allow_nan=False)
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.partial"
        with partial.open("w", encoding="utf-8") as written:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        partial.replace(file)

    def new(self) -> list[tuple[str, bytes | None]]:
        """(name, content) of what others have left, each once, in the order of the names.

        None where a file can't be read, is no plain one, or is longer than any record.

        Raises:
          OSError: if the folder can't be read; that it is not there yet is no error.
        """
        try:
            with os.scandir(self.path) as entries:
                there = {e.name.removesuffix(_SUFFIX): e for e in entries if _is_record(e.name)}
        except FileNotFoundError:
            return []
        names = sorted(there.keys() - self._known)
        self._known.update(names)
        return [(name, _content(there[name])) for name in names]


class SharedPlace:
    """The same in a store (`nas.store`), for machines that share no file system.

    Args:
      folder: name of the folder in the store.
    """

    def __init__(self, store: Store, folder: str, known: Iterable[str] = ()):
        self.path = f"{store.url}/{folder}"
        self._store, self._folder = store, folder
        self._known = set(known)

    def publish(self, name: str, record: Mapping[str, Any]) -> None:
        """As `SharedFolder.publish`; raises StoreError if the store does not take it."""
        self._known.add(name)
        self._store.create(f"{self._folder}/{name}{_SUFFIX}", json.dumps(record, allow_nan=False).encode())

    def new(self) -> list[tuple[str, bytes | None]]:
        """As `SharedFolder.new`; raises StoreError if the store can't be read."""
        there = {name.removesuffix(_SUFFIX) for name in self._store.names(self._folder) if _is_record(name)}
        found = []
        for name in sorted(there - self._known):
            content = self._store.get(f"{self._folder}/{name}{_SUFFIX}")
            self._known.add(name)  # not before: a store that does not answer now is asked again
            found.append((name, content if content and len(content) <= _MOST_BYTES else None))
        return found


def _is_record(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _content(entry: "os.DirEntry[str]") -> bytes | None:
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        with open(entry.path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= _MOST_BYTES else None
