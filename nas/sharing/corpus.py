"""A prepared corpus in a store: brought there once, fetched once by each machine, known by its hash."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from nas.store import Store, StoreError
from nas.tasks.prepared import TOKENIZER, Corpus

_CORPORA = "corpora"


def bring(store: Store, corpus: Corpus, say: Callable[[str], None]) -> None:
    """Puts into a store what it has not of a corpus.

    Raises:
      StoreError: if it can't be written.
    """
    folder = Path(corpus.folder)
    files = [f"{name}.bin" for name in corpus.files] + [TOKENIZER]
    there = store.names(place_of(corpus.sha256))
    new = [name for name in files if name not in there and (folder / name).exists()]
    if new:
        size = sum((folder / name).stat().st_size for name in new)
        say(f"bringing the corpus to {store.url}, once: {size / 1e6:,.1f} MB")
    for name in new:
        store.upload(folder / name, f"{place_of(corpus.sha256)}/{name}")


def fetched(store: Store, record: Mapping[str, Any], cache: Path) -> Corpus | None:
    """The corpus that a journal's first event names, in `cache`; None if the store has not all of it.

    Raises:
      StoreError: if it can't be read, or is damaged there.
    """
    folder = (cache / f"corpus-{record['sha256'][:16]}").resolve()
    corpus = replace(Corpus(**record), folder=str(folder))
    if not corpus.files or not set(corpus.files) <= {
        name.partition(".")[0] for name in store.names(place_of(corpus.sha256))
    }:
        return None
    for name, sha256 in corpus.files.items():
        fetch_file(store, f"{place_of(corpus.sha256)}/{name}.bin", folder / f"{name}.bin", sha256, anew=True)
    if corpus.tokenizer != "bytes":
        fetch_file(store, f"{place_of(corpus.sha256)}/{TOKENIZER}", folder / TOKENIZER, None)
    return corpus


def place_of(sha256: str) -> str:
    """Of a corpus in a store."""
    return f"{_CORPORA}/{sha256}"


def fetch_file(store: Store, name: str, path: Path, sha256: str | None, anew: bool = False) -> None:
    """Fetches a file unless it is there; of several processes of a machine one does, and the others wait for it.

    Args:
      sha256: of what it must be; None where the caller will look itself.
      anew: whether also to look into a file that is there, and to fetch it if it is another.

    Raises:
      StoreError: if the store has no such file, or another one, or it can't be written here.
    """
    if path.exists() and not anew:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists() and (not anew or sha256 in (None, _sha256(path))):
                return
            if not store.download(name, partial):
                raise StoreError(f"store={store.url} has no {name}: the driver of a search brings it there")
            if sha256 not in (None, _sha256(partial)):
                raise StoreError(f"{store.url}/{name} is damaged: remove it, and the next search brings it there again")
            partial.chmod(0o444)  # as `nas.tasks.prepared` leaves it: whoever is handed it open could open it to write
            partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
