"""`nas notes`: what a search's proposer can look up, and how a person adds to it.

The space's notes come with it; a person's own are files in the folder `notes_dir`.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.errors import UserError
from nas.knowledge import Knowledge, Note, add, load
from nas.settings import Settings
from nas.space import load_space
from nas.terminal import make_console, printable

_USAGE = "usage: nas notes add FILE|TEXT, nas notes search WORDS..., or nas notes list"
_FOUND = 5  # notes that a search of a person shows


def notes(words: list[str], settings: Settings) -> int:
    """Adds a note, shows those that match some words, or lists all. Returns the exit code.

    Raises:
      UserError: with the usage, or with what is wrong with a note.
    """
    console, own = make_console(), Path(settings.notes_dir)
    match words:
        case ["add", *text] if text:
            note = add(" ".join(text), own)
            _print(console, f"added {own / note.id}.md: {printable(note.title)}")
        case ["search", *query] if query:
            _show(console, _knowledge(settings).search(" ".join(query), _FOUND))
        case ["list"]:
            _list(console, _knowledge(settings).notes.values())
        case _:
            raise UserError(_USAGE)
    return 0


def _knowledge(settings: Settings) -> Knowledge:
    shipped = load_space(settings.search_space.module).notes
    return load([*([shipped] if shipped else []), Path(settings.notes_dir)])


def _show(console: Console, found: list[Note]) -> None:
    if not found:
        _print(console, "no note has any of these words")
    for note in found:
        console.print(Text(f"{printable(note.id)}: {printable(note.title)}", style="bold"), soft_wrap=True)
        for name in ("claim", "evidence", "helps", "hurts", "citation"):
            if text := printable(getattr(note, name)):
                _print(console, f"  {name:<9} {text}")
        console.print()


def _list(console: Console, listed: Iterable[Note]) -> None:
    table = Table("note", "title", "topics", box=None)
    for note in listed:
        table.add_row(*(Text(printable(cell)) for cell in (note.id, note.title, ", ".join(note.topics))))
    console.print(table)
    _print(console, f"{table.row_count} notes; read some with: nas notes search WORDS...")


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
