"""`nas downstream SEARCH --tasks NAME,...`: tasks of lm-evaluation-harness on what a search has trained.

At the sizes of a search a downstream score mostly tells chance from not chance; it is for what was trained for longer.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nas import reports
from nas.commands.containment import contained
from nas.commands.folder import events_of, folder_of
from nas.commands.stored import fetch_checkpoint
from nas.commands.trial_record import best_of, trained_event
from nas.configuration import settings_of
from nas.errors import UserError
from nas.journal import Event
from nas.sandbox import Box, Limits, temporary_folder
from nas.settings import Settings
from nas.space import load_space
from nas.tasks.prepared import kept_tokenizer
from nas.tasks.tokenizer import Tokenizer
from nas.terminal import make_console, printable
from nas.train import complete_checkpoints
from nas.trial import PRELOAD, memory_bytes

_USAGE = "usage: nas downstream SEARCH [TRIAL] --tasks NAME,... [--include DIR] [--limit N] [overrides]"
_SECONDS = 3600.0  # of answering the requests of all tasks


@dataclass(frozen=True)
class Wanted:
    """What to run: a search, one of its trials (None: the best at its end), tasks, and where further ones are."""

    search: str
    trial: str | None
    tasks: tuple[str, ...]
    include: Path | None
    limit: int | None


def arguments(words: Sequence[str]) -> tuple[Wanted, list[str]]:
    """(what to run, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    rest, given = list(words), dict[str, str]()
    for option in ("--tasks", "--include", "--limit"):
        if option in rest:
            position = rest.index(option)
            given[option] = " ".join(rest[position + 1 : position + 2])
            del rest[position : position + 2]
    overrides = [word for word in rest[1:] if "=" in word and not word.startswith("-")]
    named = [word for word in rest if word not in overrides]
    limit = given.get("--limit", "")
    usable = 1 <= len(named) <= 2 and not any(word.startswith("-") for word in named) and given.get("--tasks")
    if not usable or not (limit.isdigit() or "--limit" not in given):
        raise UserError(_USAGE)
    tasks = tuple(task for task in given["--tasks"].split(",") if task)
    include = Path(given["--include"]) if given.get("--include") else None
    if include and not include.is_dir():
        raise UserError(f"--include {include}: there is no such folder")
    return Wanted(named[0], named[1] if named[1:] else None, tasks, include, int(limit) if limit else None), overrides


def downstream(wanted: Wanted, settings: Settings) -> int:
    """Runs the tasks, prints their metrics and writes them beside the trial. Returns 0.

    Raises:
      UserError: with one sentence.
    """
    folder = folder_of(wanted.search, Path(settings.results_dir))
    events = events_of(folder)
    trial = trained_event(events, wanted.trial or best_of(events), folder)
    recorded = settings_of(events[0]["config"])
    os.environ.setdefault("HF_HOME", str((Path(settings.results_dir) / ".cache" / "huggingface").resolve()))
    try:
        from nas import harness  # a few seconds
    except ImportError as error:
        raise UserError(f"lm-evaluation-harness can't be imported ({error}): pip install 'nas[harness]'") from error
    tokenizer = kept_tokenizer(events[0]["corpus"])
    fetch_checkpoint(recorded.store, folder, trial["id"])
    console, space = make_console(), load_space(recorded.search_space.module)
    tier = contained(settings, console)
    with temporary_folder("nas-downstream-") as scratch:
        box = Box((*PRELOAD, "nas.answering", *sorted(space.allowed_imports)), tier=tier, root=scratch)
        try:
            ask = _asker(box, recorded, tokenizer, trial, folder.trial(trial["id"]) / "train" / "checkpoints", scratch)
            answerer = harness.Answerer(ask, tokenizer.ids, tokenizer.text, recorded.train.time)
            found = harness.evaluate(answerer, wanted.tasks, wanted.include, wanted.limit)
        finally:
            box.close()
    path = folder.path / f"downstream-{trial['id']}.json"
    path.write_text(json.dumps({"tasks": found, "limit": wanted.limit, "trial": trial["id"]}, indent=1) + "\n")
    table = Table("task", "metric", "value", title=f"{trial['id']} {printable(trial['candidate']['name'])}")
    for task, metrics in found.items():
        for metric, value in metrics.items():
            table.add_row(Text(printable(task)), metric, f"{value:.4f}")
    console.print(table)
    console.print(f"written to {path}", soft_wrap=True, markup=False)
    return 0


def _asker(
    box: Box, settings: Settings, tokenizer: Tokenizer, trial: Event, checkpoints: Path, scratch: Path
) -> Callable[[list[dict[str, Any]]], list[Any]]:
    """Has requests answered by a checkpoint, in two contained processes: one traces the candidate, one never sees it.

    Raises:
      UserError: if there is no checkpoint, or the program can't be traced.
    """
    names = complete_checkpoints(checkpoints)
    if not names:
        raise UserError(f"{trial['id']} has no checkpoint in {checkpoints}")
    shapes = {"model": asdict(settings.model), "batch": settings.train.microbatch, "time": settings.train.time}
    shapes |= {"accelerator": False, "dtype": tokenizer.dtype, "vocabulary": tokenizer.vocabulary}
    limits = Limits(_SECONDS, memory_bytes(settings))
    tracing = {**shapes, "source": trial["candidate"]["source"], "seed": trial["budget"]["seed"]}
    *_, traced = box.run("nas.rescore:export_boxed", tracing, scratch / "trace", limits)
    exported = reports.read(reports.Exported, traced.get("result"))
    if exported is None:
        raise UserError(f"{trial['id']} can't be traced: {_reason(traced)}")
    answering = {**shapes, **exported.model_dump(), "checkpoint": str((checkpoints / names[-1]).resolve())}

    def ask(requests: list[dict[str, Any]]) -> list[Any]:
        file = scratch / "requests.json"
        file.write_text(json.dumps(requests))
        *_, answered = box.run("nas.answering:boxed", answering, checkpoints.parent, limits, {"requests": file})
        answers = reports.read(reports.Answered, answered.get("result"))
        if answers is None or len(answers.answers) != len(requests):
            raise UserError(f"{trial['id']} gave no answers: {_reason(answered)}")
        return answers.answers

    return ask


def _reason(ended: dict[str, Any]) -> str:
    crash = ended.get("crashed") or {"reason": "what its process sent is no result"}
    return printable(str(crash["reason"]).strip().splitlines()[-1])
