"""The folder of one search, and how it is found by what a person calls it."""

from dataclasses import dataclass
from pathlib import Path

from nas import journal as journals
from nas.errors import UserError
from nas.journal import Event

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Folder:
    """Where one search keeps what it has."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    def trial(self, trial: str) -> Path:
        return self.path / "trials" / trial


def folder_of(search: str, results_dir: Path) -> Folder:
    for path in (Path(search), results_dir / search):
        if Folder(path).journal.is_file():
            return Folder(path)
    raise UserError(f"there is no search in {search}, nor one of that name in {results_dir}")


def events_of(folder: Folder) -> list[Event]:
    events = journals.read(folder.journal)
    if not events or events[0]["event"] != "search":
        raise UserError(f"{folder.journal} has no search in it")
    return events
