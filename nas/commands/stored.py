"""A search and its store, as its driver sees them: where it goes on from, what it brings there, what it is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nas import journal as journals
from nas.commands.folder import Folder
from nas.commands.kept_noise import bring_noise
from nas.commands.report import FILE as REPORT
from nas.errors import UserError
from nas.settings import Settings, has_credentials, is_url
from nas.sharing import place, split
from nas.sharing.checkpoints import Shelf, trial_place
from nas.sharing.journal import Copy, fetch
from nas.store import Store, StoreError

Say = Callable[[str], None]

_RESULTS = ("best.py", "best.certificate.json", REPORT)


@dataclass(frozen=True)
class Stored:
    """A search's place in a store.

    Attributes:
      root: the store.
      place: of the search in it.
      copy: how much of its journal was there when it went on.
    """

    root: Store
    place: Store
    copy: Copy


def stored(url: str | None, folder: Folder) -> Stored | None:
    """The place of a new search; None without a store.

    Raises:
      StoreError: if nothing here can reach it.
    """
    return Stored(Store(url), _place(url, folder.name), Copy()) if url else None


def found(settings: Settings, say: Say) -> tuple[Folder, Stored | None]:
    """(the folder of the search to go on with, its place in a store), its journal fetched.

    `settings.resume` is a folder, or STORE/searches/NAME: then its folder is made in results_dir. A store that is not
    named is the one that the journal names.

    Raises:
      UserError: if it can't go on from there: the store can't be read, another driver runs it, its lines differ.
    """
    resume = (settings.resume or "").rstrip("/")
    if is_url(resume):
        url, name = split(resume)
        folder = Folder(Path(settings.results_dir).resolve() / name)
    else:
        folder = Folder(Path(resume).resolve())
        url = settings.store or _recorded(folder) or ""
    if not url:
        return folder, None
    in_store = _place(url, folder.name)
    at = Stored(Store(url), in_store, fetch(in_store, folder.journal, say))
    if not folder.journal.is_file():
        raise UserError(f"there is no search in {in_store.url}")
    return folder, at


def fetch_checkpoint(url: str | None, folder: Folder, trial: str) -> None:
    """Fetches a trial's newest checkpoint, if another machine has trained it.

    Raises:
      StoreError: if the store can't be read.
    """
    if url:
        Shelf(Store(url), trial_place(folder.name, trial), folder.trial(trial)).fetch()


def bring_results(at: Stored, folder: Folder, noise: Path, say: Say) -> None:
    """What a search leaves beside its journal, and what later searches take from it; a failure is told."""
    try:
        bring_noise(at.root, noise)
        for name in _RESULTS:
            if (folder.path / name).is_file():
                at.place.upload(folder.path / name, f"files/{name}")
    except StoreError as error:
        say(f"{error}; {folder.path} has everything")


def _place(url: str, name: str) -> Store:
    return Store(place(url, name))


def _recorded(folder: Folder) -> str | None:
    """The store that a journal names, if there is one here."""
    if not folder.journal.is_file():
        return None
    begun = journals.read(folder.journal)[:1]
    url = begun[0].get("config", {}).get("store") if begun else None
    if url and (not isinstance(url, str) or has_credentials(url)):
        raise UserError(f"{folder.journal} names no store that can be used: give store=URL")
    return url
