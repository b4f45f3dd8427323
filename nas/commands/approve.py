"""`nas approve|reject|rollback SEARCH TRIAL --by NAME --why TEXT`, and `nas audit`: promotion needs a person.

What was verified may be approved: it is then a baseline of later searches, to be beaten and to be a parent. Every
decision is a line of results_dir/approvals.jsonl (`nas.approvals`). MLflow's registry is written from that line, and
anew by `nas audit registry`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from nas.approvals import ACTIONS, TRAIL, Decision, approved, decide, read_trail, sha256
from nas.commands.folder import Folder, events_of, folder_of
from nas.commands.shown import show_registry
from nas.commands.signed import signature_of
from nas.errors import UserError
from nas.journal import Event
from nas.settings import Settings
from nas.terminal import make_console, printable
from nas.types import Fitness, trial_from_json

_AUDIT = "usage: nas audit [verify|registry] [overrides]"


def arguments(action: str, words: Sequence[str]) -> tuple[str, str, str, str, list[str]]:
    """(search, trial, by, why, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    rest, given = signature_of(words)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    named = [word for word in rest if word not in overrides]
    if len(named) != 2 or any(word.startswith("-") for word in named) or not all(map(given.get, ("--by", "--why"))):
        raise UserError(f"usage: nas {action} SEARCH TRIAL --by NAME --why TEXT [overrides]")
    return named[0], named[1], given["--by"], given["--why"], overrides


def approve(
    action: str, search: str, trial: str, by: str, why: str, asked: Settings, overrides: Sequence[str] = ()
) -> int:
    """Writes the decision, and then the registry; says what follows from it. Returns 0.

    Args:
      asked: what `overrides` make of the defaults: where the results are.

    Raises:
      UserError: with one sentence.
    """
    results_dir = Path(asked.results_dir)
    folder = folder_of(search, results_dir)
    decision = _decision(action, folder, trial, by, why)
    event = decide(results_dir / TRAIL, decision)
    follows = {
        "approve": "later searches have it among their baselines",
        "reject": "nothing else changes",
        "rollback": "later searches do not have it any more",
    }[action]
    _print(
        f"{trial} of {folder.name} ({decision.candidate.id}, verdict {decision.verdict or 'none'}) is {ACTIONS[action]}"
        f" as line {event['number']} of {results_dir / TRAIL}: {follows}"
    )
    _, troubles = show_registry(results_dir, asked, overrides)
    for trouble in troubles:
        _print(f"{trouble} The decision stands.")
    return 0


def _decision(action: str, folder: Folder, trial: str, by: str, why: str) -> Decision:
    """Raises UserError if there is no such trial, or nothing to decide on."""
    events = events_of(folder)
    ended = next((event for event in events if event["event"] == "trial" and event["id"] == trial), None)
    if ended is None:
        raise UserError(f"there is no finished trial {trial} in {folder.path}")
    verdicts = [event for event in events if event["event"] == "verified" and event["trial"] == trial]
    found = trial_from_json(ended)
    if action == "approve" and not isinstance(found.outcome, Fitness):
        raise UserError(f"{trial} was not trained to a score: it can't be approved")
    if action == "approve" and not verdicts:
        raise UserError(f"{trial} was not verified: nas verify {folder.path} comes first")
    seen = {"source": sha256(found.candidate.source.encode()), "trial": _sha256_of(ended)}
    if verdicts:
        seen["verdict"] = _sha256_of(verdicts[-1])
    report = folder.path / "verification.md"
    if report.is_file():
        seen[report.name] = sha256(report.read_bytes())
    verdict = verdicts[-1]["verdict"] if verdicts else None
    space = events[0]["config"]["search_space"]["module"]
    return Decision(action, found.candidate, space, folder.name, trial, verdict, by, why, seen)


def _sha256_of(event: Event) -> str:
    return sha256(json.dumps(event, sort_keys=True).encode())


def audit(words: Sequence[str], asked: Settings, overrides: Sequence[str] = ()) -> int:
    """Shows the decisions, with the head of their chain; with "verify" no more than whether it is whole.

    With "registry" it writes MLflow's registry from the decisions and the journals. Returns 0; 1 if MLflow has not
    taken it.

    Args:
      asked: what `overrides` make of the defaults: where the results are.

    Raises:
      UserError: with the usage, or where the chain is broken.
    """
    if list(words) not in ([], ["verify"], ["registry"]):
        raise UserError(_AUDIT)
    results_dir = Path(asked.results_dir)
    if list(words) == ["registry"]:
        return _write_registry(results_dir, asked, overrides)
    path = results_dir / TRAIL
    events = read_trail(path)
    if not words:
        for event in events:
            _print(_in_words(event))
    if not events:
        _print(f"Nothing was decided yet: there is no {path}")
        return 0
    _print(
        f"{path} is whole: {len(events)} decisions, {len(approved(events))} stand approved, head {events[-1]['hash']}"
    )
    return 0


def _write_registry(results_dir: Path, asked: Settings, overrides: Sequence[str]) -> int:
    told, troubles = show_registry(results_dir, asked, overrides, with_runs=True)
    for line in [*told, *troubles]:
        _print(printable(line))
    if not told and not troubles:
        _print(f"There is nothing to write: nothing in {results_dir} that MLflow shows was verified")
    return int(bool(troubles))


def _in_words(event: Event) -> str:
    what = f"{event['trial']} of {event['search']} ({event['candidate']['id']}, verdict {event['verdict'] or 'none'})"
    return printable(
        f"{event['number']}  {event['when']}  {what} {ACTIONS.get(event['event'], event['event'])} "
        f"by {event['by']}: {event['why']}"
    )


def _print(line: str) -> None:
    make_console().print(line, markup=False, soft_wrap=True)
