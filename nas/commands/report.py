"""`nas report [--recursion] SEARCH [SEARCH ...]`: one HTML file for people who would rather look.

Several searches are compared. Written from what is on disk, so also of a search that runs, or that ended badly. With
tracking it is an artifact of the search's run as well.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nas.approvals import TRAIL, read_trail
from nas.commands.folder import Folder, events_of, folder_of
from nas.commands.measuring import markdown_table
from nas.commands.shown import attach, place_of
from nas.errors import UserError
from nas.report import Account, account_of, page, recursion
from nas.settings import Settings
from nas.terminal import make_console

_USAGE = "usage: nas report [--recursion] SEARCH [SEARCH ...] [overrides]"
_RECURSION = "--recursion"
FILE = "report.html"


def arguments(words: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """(searches, whether how they improved on each other is asked for, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    searches = [word for word in words if word not in (*overrides, _RECURSION)]
    if not searches or any(word.startswith("-") for word in searches):
        raise UserError(_USAGE)
    return searches, _RECURSION in words, overrides


def report(searches: Sequence[str], recursive: bool, asked: Settings, overrides: Sequence[str]) -> int:
    """Writes the page: of one search into its folder and to MLflow, of several into results_dir. Returns 0.

    Args:
      recursive: with the measures of self-improvement over these searches, in the order given; they are shown too.
      asked: what `overrides` make of the defaults.

    Raises:
      UserError: with one sentence.
    """
    results, console = Path(asked.results_dir), make_console()
    folders = [folder_of(search, results) for search in searches]
    accounts = [account(folder, results) for folder in folders]
    measures = recursion.table(accounts) if recursive else None
    path = folders[0].path / FILE if len(folders) == 1 else results / f"report-{'-'.join(f.name for f in folders)}.html"
    write(path, page(accounts, _made(folders), measures))
    if measures:
        console.print("\n".join(markdown_table(measures.headers, measures.rows)), markup=False, soft_wrap=True)
    troubles = _attach(folders[0], path, asked, overrides) if len(folders) == 1 else []
    for line in [*troubles, f"written to {path}: open it in a browser, offline too"]:
        console.print(line, markup=False, soft_wrap=True)
    return 0


def refresh(folder: Folder, asked: Settings, overrides: Sequence[str], console: Console) -> None:
    """The page of a search that is shown in MLflow, as it is now; what goes wrong is told, and costs nothing else."""
    try:
        if place_of(events_of(folder)[0], folder.path.resolve().parent, asked, overrides) is None:
            return
        write(folder.path / FILE, page([account(folder, folder.path.parent)], _made([folder])))
        troubles = _attach(folder, folder.path / FILE, asked, overrides)
    except UserError as error:
        troubles = [f"There is no report: {error}"]
    for trouble in troubles:
        console.print(trouble, markup=False, soft_wrap=True)


def _attach(folder: Folder, path: Path, asked: Settings, overrides: Sequence[str]) -> list[str]:
    """Raises UserError if the journal can't be read."""
    begun = events_of(folder)[0]
    return attach(begun, [path], place_of(begun, folder.path.resolve().parent, asked, overrides))


def write(path: Path, html: str) -> None:
    """The page, whole or not at all.

    Raises:
      UserError: with one sentence.
    """
    unfinished = path.with_suffix(".part")
    try:
        unfinished.write_text(html, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error


def account(folder: Folder, results: Path) -> Account:
    return account_of(folder.name, events_of(folder), folder.path, read_trail(results / TRAIL))


def _made(folders: Sequence[Folder]) -> str:
    """How and when; the hashes say of which journals, whatever they are later."""
    seen = ", ".join(f"{f.name} (sha256 {hashlib.sha256(f.journal.read_bytes()).hexdigest()[:16]})" for f in folders)
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"Made by nas report {' '.join(folder.name for folder in folders)} at {when}, from the journal of {seen}."
