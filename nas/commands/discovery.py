"""`nas discovery SEARCH`: what a verified search has found, as one Markdown file with the commands that make it again.

Five questions answered as in `nas report`, then the evidence: verdicts, the best architecture's source, each change on
the way to it, the curve beside the searches that were verified with it, what each operator came to, what failed.
"""

import json
import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.commands.folder import Folder, events_of, folder_of
from nas.commands.measuring import markdown_table
from nas.commands.report import account, write
from nas.commands.verified import architectures, curves
from nas.commands.verified import table as verdict_table
from nas.configuration import as_recorded, composed, settings_of
from nas.errors import UserError
from nas.markdown import as_prose
from nas.report import Account, tables
from nas.report.account import Attempt
from nas.report.answers import answers, share
from nas.statistics import mean_interval
from nas.terminal import make_console, printable, visible
from nas.types import Fitness

_USAGE = "usage: nas discovery SEARCH [overrides]"
_PLAIN = re.compile(r"[\w./+-]+(:[\w./+-]+)*")  # words that Hydra takes as they are
_WHERE = ("results_dir", "notes_dir", "resume", "name", "store")  # of a search, not of what it finds


def arguments(words: Sequence[str]) -> tuple[str, list[str]]:
    """(search, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    searches = [word for word in words if word not in overrides]
    if len(searches) != 1 or searches[0].startswith("-"):
        raise UserError(_USAGE)
    return searches[0], overrides


def discovery(search: str, results: Path) -> int:
    """Writes results/discovery.md, and its figure beside it. Returns 0.

    Raises:
      UserError: with one sentence.
    """
    folder = folder_of(search, results)
    report = account(folder, folder.path.parent).verification
    if "curves" not in report:
        raise UserError(f"{folder.path} is not verified yet: nas verify {folder.name} [--beside SEARCH ...]")
    beside = [str(folder.path.parent / curve["search"]) for curve in report["curves"][1:]]
    folders = [folder, *(folder_of(search, results) for search in beside)]
    path, figure = results / "discovery.md", results / "discovery.svg"
    write(path, markdown([(one, account(one, folder.path.parent)) for one in folders]))
    try:
        shutil.copyfile(folder.path / "verification.svg", figure)
    except OSError as error:
        raise UserError(f"{figure} can't be written ({error.strerror}): nas verify {folder.name} draws it") from error
    make_console().print(f"written to {path}", markup=False, soft_wrap=True)
    return 0


def markdown(searches: Sequence[tuple[Folder, Account]]) -> str:
    """The file.

    Args:
      searches: the verified one first, then those that were verified beside it.
    """
    found = searches[0][1]
    lines = [f"# What {as_prose(found.name)} has found", "", *_commands(searches)]
    for answer in answers(found):
        lines += [f"**{answer.question}** {as_prose(answer.short)}", ""]
        lines += [f"- {as_prose(reason)}" for reason in answer.because]
        lines += [""]
    lines += ["## Verdicts", "", *verdict_table(found.verification), tables.terms(found), ""]
    lines += architectures(found.verification)
    lines += ["## The best architecture", "", *_source(found), "## How it came about", "", *_path(found)]
    lines += ["## The curve", "", "![the best so far, and its verified gain](discovery.svg)", ""]
    lines += curves(found.verification)
    lines += ["## Cost", "", *_costs([account for _, account in searches])]
    lines += ["## What each operator came to", "", *_operators(found), "## What failed", "", *_failures(found)]
    return "\n".join(lines)


def _commands(searches: Sequence[tuple[Folder, Account]]) -> Iterator[str]:
    folder, found = searches[0]
    for one, _ in searches:
        yield f"    nas search {shlex.join(overrides(one))}"
        for event in events_of(one):
            more = [word for word in event.get("overrides", ()) if not word.startswith("resume=")]
            if event["event"] == "resume" and more:
                yield f"    nas search resume={shlex.quote(str(one.path))} {shlex.join(more)}"
    yield f"    {visible(found.verification['command'])}"
    yield f"    nas discovery {folder.name}"
    if found.best:
        yield f"    nas reproduce {folder.name} {found.best.id}"
    setup = "; ".join(f"{name}: {value}" for name, value in found.setup.items())
    yield from ("", as_prose(f"{setup}; {', '.join(f'{name} {value}' for name, value in found.versions.items())}."), "")


def overrides(folder: Folder) -> list[str]:
    """What has to be set beside the defaults to get this search once more."""
    config = as_recorded(events_of(folder)[0]["config"])
    ours, usual = (dict(_flat(asdict(settings))) for settings in (config, settings_of(composed([]))))
    changed = [key for key, value in ours.items() if value != usual.get(key) and key not in _WHERE]
    added = {key: "" if key in usual else "+" for key in changed}
    return [f"name={folder.name}", *(f"{added[key]}{key}={_word(ours[key])}" for key in changed)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(value: Any) -> str:
    """As Hydra reads it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_word(key)}:{_word(each)}' for key, each in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _source(found: Account) -> list[str]:
    if found.best is None:
        return ["None.", ""]
    source = visible(found.best.candidate.source).strip("\n")
    return [f"Candidate {found.best.candidate.id}, trial {found.best.id}.", "", *_fenced(source, "python")]


def _path(found: Account) -> list[str]:
    lines: list[str] = []
    for step in tables.path(found):
        lines += [f"**{as_prose(step.title)}** {as_prose(step.gain)}", ""]
        lines += [f"Its author's reason: {as_prose(printable(step.motivation))}", ""] if step.motivation else []
        lines += _fenced(visible(step.diff), "diff")
    return lines or ["No change lies between a baseline and the best candidate.", ""]


def _fenced(text: str, language: str) -> list[str]:
    """A block of code that no line of `text` ends."""
    longest = max((len(line) - len(line.lstrip("`")) for line in map(str.strip, text.splitlines())), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text, fence, ""]


def _costs(accounts: Sequence[Account]) -> list[str]:
    rows = [
        [
            as_prose(one.name),
            len(one.proposals),
            sum(attempt.whole for attempt in one.proposals),
            f"{one.minutes:.1f}",
            f"{one.device_minutes:.1f}",
            f"{sum(trial.cost.gate_seconds for trial in one.trials) / 60:.1f}",
        ]
        for one in accounts
    ]
    headers = ["search", "candidates", "trained to the end", "minutes", "training, device-minutes", "gate, minutes"]
    verified = f"The verification's last run took {accounts[0].verification['minutes']:.1f} minutes more."
    return [*markdown_table(headers, rows), verified, ""]


def _operators(found: Account) -> list[str]:
    """What the children of each operator came to, at the one seed of the search."""
    children: dict[str, list[Attempt]] = defaultdict(list)
    for one in found.proposals:
        children[one.trial.candidate.operator].append(one)
    rows = [
        [
            as_prose(printable(operator)),
            len(those),
            sum(not isinstance(one.trial.outcome, Fitness) for one in those),
            sum(one.trial.stopped and isinstance(one.trial.outcome, Fitness) for one in those),
            share(sum((one.gain or 0.0) > 0 for one in those), len(those)),
            str(mean_interval([one.gain or 0.0 for one in those])),
        ]
        for operator, those in sorted(children.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    headers = ["operator", "children", "without a score", "stopped early", "gained over the parent", "mean gain"]
    note = (
        "Gains in bits per byte over the best parent at the search's seed; zero within the noise, and without a score."
    )
    return [*markdown_table(headers, rows), note, ""]


def _failures(found: Account) -> list[str]:
    table = tables.failures(found)
    rows = [[as_prose(cell) for cell in row] for row in table.rows]
    return markdown_table(table.headers, rows) if rows else ["Nothing: every candidate came to a score.", ""]
