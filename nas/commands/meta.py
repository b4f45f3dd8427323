"""`nas meta`: what a search has learned of operators and candidates: for the next one, and to compare policies by.

nas meta export SEARCH [FILE]            its posterior, for meta.prior=FILE; results/NAME itself will do too
nas meta compare SEARCH [meta=... ...]   what each policy would have earned on its logged choices
nas meta race SEARCH SEARCH ...          how far searches by different policies got (`nas.commands.race`)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.commands.folder import events_of, folder_of
from nas.configuration import as_recorded
from nas.errors import UserError
from nas.journal import Event
from nas.learned import Retold
from nas.meta import POLICIES, Posterior, make_policy
from nas.meta.offline import Estimates, estimates
from nas.settings import MetaSettings, Settings
from nas.space import SearchSpace, load_space
from nas.terminal import make_console, printable

_USAGE = (
    "usage: nas meta export SEARCH [FILE] | nas meta compare SEARCH [meta.KEY=VALUE] | nas meta race SEARCH SEARCH ..."
)


def arguments(words: Sequence[str]) -> tuple[str, list[str], str | None, list[str]]:
    """("export" | "compare" | "race", searches, file, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    named = [word for word in words if word not in overrides]
    action, *rest = named or [""]
    fewest, most = {"export": (1, 2), "compare": (1, 1), "race": (2, len(rest))}.get(action, (1, 0))
    if not fewest <= len(rest) <= most or any(word.startswith("-") for word in named):
        raise UserError(_USAGE)
    if action == "race":
        return action, rest, None, overrides
    return action, rest[:1], rest[1] if len(rest) > 1 else None, overrides


def export(search: str, file: str | None, settings: Settings) -> int:
    """Writes the posterior of a search to FILE, or to posterior.json in its folder. Returns 0.

    Raises:
      UserError: with one sentence.
    """
    folder = folder_of(search, Path(settings.results_dir))
    posterior = posterior_of(folder.path)
    path = Path(file) if file else folder.path / "posterior.json"
    try:
        path.write_text(json.dumps({"search": folder.name, **posterior.to_json()}, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    trials = sum(pulls for cell, (pulls, _) in posterior.cells.items() if len(cell) == 1)
    make_console().print(
        f"written to {path}: {trials:.0f} trials of {len({cell[0] for cell in posterior.cells})} operators, "
        f"{len(posterior.measured)} candidates; "
        f"nas search meta.prior={path} starts from it",
        soft_wrap=True,
        markup=False,
    )
    return 0


def prior_of(settings: MetaSettings) -> Posterior | None:
    """What `meta.prior` names: a file of `export`, or the folder of a search; None if it names nothing.

    Raises:
      UserError: with one sentence, if it is not there or is damaged.
    """
    if settings.prior is None:
        return None
    path = Path(settings.prior)
    if path.is_dir():
        return posterior_of(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Posterior.from_json({**values, "cells": values["cells"]})
    except FileNotFoundError:
        raise UserError(f"meta.prior={path}: there is no such file or search") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"meta.prior={path} is no file of nas meta export: {error}") from error


def posterior_of(path: Path) -> Posterior:
    """What a search has learned, from its journal.

    Raises:
      UserError: with one sentence.
    """
    events, settings, space = _recorded(path)
    return Retold(events, settings, space).posterior()


def _recorded(path: Path) -> tuple[list[Event], Settings, SearchSpace]:
    events = events_of(folder_of(str(path), path.parent))
    settings = as_recorded(events[0]["config"])
    return list(events), settings, load_space(settings.search_space.module)


def compare(search: str, settings: Settings) -> int:
    """Shows what each policy would have earned on the choices that a search has logged. Returns 0.

    Args:
      settings: of the policies, but for their kind.

    Raises:
      UserError: with one sentence.
    """
    folder = folder_of(search, Path(settings.results_dir))
    events, recorded, space = _recorded(folder.path)
    decisions = Retold(events, recorded, space).decisions
    if not decisions:
        raise UserError(f"{folder.path} has no choices that came to an end")
    operators = list(dict.fromkeys(name for decision in decisions for name in decision.weights))
    console = make_console()
    table = Table("policy", "doubly robust", "inverse propensity", "self-normalised", "overlap")
    for kind in POLICIES:
        policy = make_policy(replace(settings.meta, kind=kind), operators)
        try:
            found = estimates(decisions, policy)
        except ValueError as error:
            raise UserError(f"{folder.path} can't be used: {error}") from error
        table.add_row(*_row(kind, found))
    console.print(
        f"credit a trial, over {len(decisions)} choices of {printable(folder.name)} by {recorded.meta.kind}, which "
        f"earned {found.logged!s}; 95% intervals; overlap: the effective share of the log that speaks for a policy",
        soft_wrap=True,
        markup=False,
    )
    console.print(table)
    return 0


def _row(kind: str, found: Estimates) -> tuple[str, ...]:
    of_all = (str(found.doubly_robust), str(found.propensity))
    return (kind, *of_all, f"{found.self_normalised:.4f}", f"{found.overlap:.0%}")


def first_prior(events: Sequence[Mapping[str, Any]], settings: MetaSettings) -> Posterior | None:
    """The prior of a search: of a resumed one what its journal began with, of a new one what `meta.prior` names."""
    if not events:
        return prior_of(settings)
    return Posterior.from_json(events[0]["prior"]) if events[0].get("prior") else None
