"""`nas review`: what a search holds until a person has looked, and that person's word on it.

A decision is an event of the journal, with who made it and why, and so on the audit trail for good. The search takes
it in when it is resumed.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nas.commands.folder import Folder, events_of, folder_of
from nas.commands.shown import place_of, show
from nas.commands.signed import signature_of
from nas.errors import UserError
from nas.journal import Event, Journal
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.terminal import make_console, printable
from nas.types import Fitness, Held, Trial, outcome_kind, trial_from_json

_USAGE = "usage: nas review SEARCH [accept|refuse TRIAL --by NAME --why TEXT] [overrides]"
_PAST = {"accept": "accepted", "refuse": "refused"}


@dataclass(frozen=True)
class Decision:
    """A person's word on a held trial.

    Attributes:
      trial: its id.
      verdict: "accept" (it counts as the score that it was told as) | "refuse" (it stays held for good).
      by: who decides.
      why: in a sentence, for whoever reads the journal later.
    """

    trial: str
    verdict: str
    by: str
    why: str


def arguments(words: Sequence[str]) -> tuple[str, Decision | None, list[str]]:
    """(search, decision, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    rest, given = signature_of(words)
    overrides = [word for word in rest[1:] if "=" in word and not word.startswith("-")]
    named = [word for word in rest if word not in overrides]
    if len(named) == 1 and not given and not named[0].startswith("-"):
        return named[0], None, overrides
    if len(named) == 3 and named[1] in _PAST and given.get("--by") and given.get("--why"):
        return named[0], Decision(named[2], named[1], given["--by"], given["--why"]), overrides
    raise UserError(_USAGE)


def review(search: str, asked: Settings, decision: Decision | None = None, overrides: Sequence[str] = ()) -> int:
    """Shows what a search holds, or writes a decision into its journal. Returns the exit code.

    Args:
      search: its results folder, or the name of one in the results folder.
      asked: what `overrides` make of the defaults: where the results are.

    Raises:
      UserError: if there is no such search, or nothing to decide on.
    """
    folder, console = folder_of(search, Path(asked.results_dir)), make_console()
    if decision is None:
        for line in _shown(folder, events_of(folder)):
            _print(console, line)
        return 0
    with closing(Journal(folder.journal)) as journal:  # under its lock: no search is running
        events = events_of(folder)
        _check(decision, events)
        journal.append(
            {
                "event": "review",
                "trial": decision.trial,
                "decision": decision.verdict,
                "by": decision.by,
                "why": decision.why,
            }
        )
    _print(console, f"{decision.trial} is {_PAST[decision.verdict]}; the search takes that in when it goes on:")
    _print(console, f"  nas search resume={folder.path}")
    for trouble in show(folder, place_of(events[0], folder.path.resolve().parent, asked, overrides)):
        _print(console, trouble)
    return 0


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _ended(events: Sequence[Event]) -> dict[str, Trial]:
    return {event["id"]: trial_from_json(event) for event in events if event["event"] == "trial"}


def _decisions(events: Sequence[Event]) -> dict[str, Event]:
    return {event["trial"]: event for event in events if event["event"] == "review"}


def _check(decision: Decision, events: Sequence[Event]) -> None:
    """Raises UserError if there is nothing to decide on."""
    trial, known = decision.trial, {event["trial"] for event in events if event["event"] == "ask"}
    ended, decided = _ended(events), _decisions(events)
    if trial in decided:
        raise UserError(f"{trial} was decided on already: {_in_words(decided[trial])}")
    if trial in ended and not isinstance(ended[trial].outcome, Held):
        raise UserError(f"{trial} is not held: it ended as {outcome_kind(ended[trial].outcome)}")
    if trial not in ended:
        raise UserError(f"{trial} has not ended" if trial in known else f"there is no trial {trial} in this search")


def _shown(folder: Folder, events: Sequence[Event]) -> Iterator[str]:
    """Line by line: what waits, what was decided, and of what else there was notice."""
    ended, decided = _ended(events), _decisions(events)
    waiting = [trial for trial in ended.values() if isinstance(trial.outcome, Held) and trial.id not in decided]
    if waiting:
        space = load_space(events[0]["config"]["search_space"]["module"])
        best = _best_baseline(ended.values())
        for trial in waiting:
            yield from _case(trial, best, space, folder)
        yield f"Decide with: nas review {folder.path} accept|refuse TRIAL --by NAME --why TEXT"
    else:
        yield "Nothing waits for a decision."
    if decided:
        yield from ["", "Decided:", *(f"  {trial} {_in_words(event)}" for trial, event in decided.items())]
    if notices := [event for event in events if event["event"] in ("notice", "lost")]:
        yield from ["", "Notices:"]
        for event in notices:
            about = event["tripwire"] if event["event"] == "notice" else event["trial"]
            yield f"  {_date(event)} {printable(about)}: {printable(event['reason'])}"


def _case(trial: Trial, best: tuple[str, Fitness] | None, space: SearchSpace, folder: Folder) -> Iterator[str]:
    """One held trial, for the person who decides."""
    assert isinstance(trial.outcome, Held)
    candidate = trial.candidate
    baseline = f"best baseline {best[0]}: {_bits(best[1])}" if best else "no baseline was trained"
    yield f"{trial.id} is held: {printable(trial.outcome.tripwire)}: {printable(trial.outcome.reason)}"
    yield f"  candidate      {candidate.id}, {trial.purpose} {_name(trial)}, by {printable(candidate.proposer)}"
    yield f"  family         {printable(space.family(candidate.source))}"
    yield f"  bits per byte  {_bits(trial.outcome.fitness)}; {baseline}"
    yield f"  source         {folder.trial(trial.id) / 'candidate.py'}"
    yield ""


def _best_baseline(trials: Iterable[Trial]) -> tuple[str, Fitness] | None:
    """(name, score) of the best baseline that counts."""
    scores = [(_name(t), t.outcome) for t in trials if t.purpose == "baseline" and isinstance(t.outcome, Fitness)]
    return min(scores, key=lambda pair: pair[1].bits_per_byte, default=None)


def _name(trial: Trial) -> str:
    return printable(trial.candidate.name) or printable(trial.candidate.operator)


def _bits(fitness: Fitness) -> str:
    held_out = fitness.held_out_bits_per_byte
    return f"{fitness.bits_per_byte:.4f}" + ("" if held_out is None else f" (held out {held_out:.4f})")


def _in_words(decided: Event) -> str:
    word = _PAST.get(decided["decision"], printable(str(decided["decision"])))
    return f"{word} by {printable(decided['by'])} on {_date(decided)}: {printable(decided['why'])}"


def _date(event: Event) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(event["time"]))
