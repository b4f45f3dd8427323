"""A folder that every machine of a team can reach, by an fsspec URL: `file:///shared/nas`, `s3://bucket/nas`, `gs://…`.

What it holds comes and goes whole: no reader sees half of it. Whoever has to be the only one creates: of two that
create the same name one is told that it is there already. Both hold for local and NFS folders, S3 (and stores that know
its `If-None-Match`), Google's and memory, and are asked of any other that fsspec knows.

Credentials come from the environment, where the store's own library looks for them: AWS_ACCESS_KEY_ID and so on.
"""

import errno
import os
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from nas.errors import UserError

Found = TypeVar("Found")

_ATTEMPTS, _LONGEST_WAIT = 4, 3.0  # seconds between two of them
_LETTERS = 200  # of what a library says
_OPTIONS: dict[str, dict[str, Any]] = {  # else they wait for minutes
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}},
}
_SHIPPED = ("s3fs", "gcsfs")  # with nas[store]
_LASTING = (
    *(FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError),
    *(NotImplementedError, ImportError, TypeError, ValueError, LookupError),
)
_LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
)
_REFUSED = (401, 403, "401", "403")


class StoreError(UserError):
    """The store can't be used, or not now. The message is one sentence that says what to do."""


class Store:
    """A folder of a store. Names are paths below it, with `/` between their parts. From any thread.

    Args:
      url: an fsspec URL; `nas.settings` refuses those with a password in them.

    Raises:
      StoreError: if nothing here can reach such a URL.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        protocol = self.url.partition("://")[0]
        try:
            self._files, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False, **_OPTIONS.get(protocol, {}))
        except ImportError as error:
            package = str(known_implementations.get(protocol, {}).get("class", protocol)).partition(".")[0]
            how = "'nas[store]'" if package in _SHIPPED else package
            raise StoreError(f"store={url} needs {package}: pip install {how}") from error
        except Exception as error:  # each library has its own
            raise StoreError(f"store={url} can't be used: {_words(error)}") from error

    def put(self, name: str, content: bytes) -> None:
        """Writes it, whole, in the place of what was there."""
        place = self._place(name)
        if isinstance(self._files, LocalFileSystem):
            self._do("written", lambda: _write_beside(place, content, os.replace))
        else:
            self._do("written", lambda: self._files.pipe_file(place, content))

    def create(self, name: str, content: bytes) -> bool:
        """Writes it if there is nothing of that name; whether it did.

        Of something the caller alone could have written, as it has a random number in it: the answer to an earlier
        attempt may have been lost, and then it is there.
        """
        place = self._place(name)
        try:
            if isinstance(self._files, LocalFileSystem):
                self._do("written", lambda: _write_beside(place, content, os.link))
            else:
                self._do("written", lambda: self._files.pipe_file(place, content, mode="create"))
        except FileExistsError:
            return self.get(name) == content
        return True

    def get(self, name: str) -> bytes | None:
        """What is there of that name; None for nothing."""
        try:
            content: bytes = self._do("read", lambda: self._files.cat_file(self._place(name)))
        except FileNotFoundError:
            return None
        return content

    def get_all(self, names: Iterable[str]) -> list[bytes]:
        """Several, at once where the store can.

        Raises:
          StoreError: also if one is not there.
        """
        places = [self._place(name) for name in names]
        try:
            found = self._do("read", lambda: self._files.cat(places)) if len(places) > 1 else {}
            return [found[place] for place in places] if found else [self._cat(place) for place in places]
        except (FileNotFoundError, KeyError) as error:
            raise StoreError(f"store={self.url} lacks {_words(error)}, which it had a moment ago") from error

    def upload(self, file: Path, name: str) -> None:
        """Puts a file of any size there, whole."""
        place = self._place(name)
        if isinstance(self._files, LocalFileSystem):
            partial = _partial(place)
            self._do("written", lambda: self._files.put_file(str(file), partial))
            os.replace(partial, place)
        else:
            self._do("written", lambda: self._files.put_file(str(file), place))

    def download(self, name: str, file: Path) -> bool:
        """Writes what is there of that name to a file; whether there is anything. The caller gives it its last name."""
        try:
            self._do("read", lambda: self._files.get_file(self._place(name), str(file)))
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        """Of what is in a folder, sorted: without the folder's own."""
        try:
            found = self._do("read", lambda: self._files.ls(self._place(folder), detail=False))
        except FileNotFoundError:
            return []
        last = sorted(str(place).rstrip("/").rpartition("/")[2] for place in found)
        return [name for name in last if not name.startswith(".")]

    def has(self, name: str) -> bool:
        return bool(self._do("read", lambda: self._files.exists(self._place(name))))

    def remove(self, name: str) -> None:
        """Removes it, if it is there."""
        with suppress(FileNotFoundError):
            self._do("removed", lambda: self._files.rm_file(self._place(name)))

    def _cat(self, place: str) -> bytes:
        content: bytes = self._do("read", lambda: self._files.cat_file(place))
        return content

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _do(self, what: str, function: Callable[[], Found]) -> Found:
        """Calls it, several times where what goes wrong may pass.

        Raises:
          FileNotFoundError, FileExistsError: as the store says so of a name.
          StoreError: for all else.
        """
        attempts = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(0.2, _LONGEST_WAIT),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return attempts(function)
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if what != "written":
                raise
            raise StoreError(
                f"store={self.url} is not there: make the bucket or the folder ({_words(error)})"
            ) from error
        except Exception as error:
            if _is_refusal(error):
                raise StoreError(
                    f"store={self.url} refuses the credentials, or has none ({_words(error)}): set them in the "
                    "environment of this machine, as the store's own tools read them"
                ) from error
            raise StoreError(f"store={self.url} can't be {what}: {_words(error)}") from error


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _LASTING_NUMBERS:
        return False
    return isinstance(error, Exception) and not isinstance(error, _LASTING) and not _is_refusal(error)


def _is_refusal(error: BaseException) -> bool:
    names = (type(error).__name__, type(error.__cause__).__name__)
    refused = isinstance(error, PermissionError) or getattr(error, "code", None) in _REFUSED
    return refused or any(name in _NO_CREDENTIALS for name in names)


def _write_beside(place: str, content: bytes, move: Callable[[str, str], None]) -> None:
    """Writes a file whole or not at all: elsewhere first, then moved or linked to its place."""
    partial = _partial(place)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(partial, place)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _partial(place: str) -> str:
    """A name beside it that no other writer has, and no listing shows."""
    folder, _, name = place.rpartition("/")
    os.makedirs(folder, exist_ok=True)
    return f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"


def _words(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:_LETTERS]
