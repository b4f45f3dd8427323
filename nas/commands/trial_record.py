"""What the journal of a search says of one trained trial, looked through for damage before anything is built on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.commands.folder import Folder, events_of
from nas.comparisons import rung_steps
from nas.configuration import as_recorded, unrecorded
from nas.errors import UserError
from nas.journal import Event
from nas.settings import Settings
from nas.terminal import printable
from nas.types import Fitness, Held, Rung, Trial, trial_from_json


@dataclass(frozen=True)
class TrialRecord:
    """One trained trial, and what it takes to train it again.

    Attributes:
      settings: of the search.
      trial: as it was told.
      fitness: what it came to; of a trial that was held, what a person has accepted.
      told: the measurements on the way, as they were told while it ran.
      environment: where it was trained (see `nas.commands.environment`); older journals do not say.
    """

    folder: Folder
    events: Sequence[Event]
    settings: Settings
    trial: Trial
    fitness: Fitness
    told: Sequence[Rung]
    environment: Event

    @property
    def corpus(self) -> Mapping[str, Any]:
        corpus: Mapping[str, Any] = self.events[0]["corpus"]
        return corpus

    @property
    def label(self) -> str:
        """For people, on one line."""
        return printable(f"{self.trial.candidate.name or self.trial.candidate.operator} {self.trial.candidate.id}")


def record_of(folder: Folder, name: str) -> TrialRecord:
    """The record of trial `name`.

    Raises:
      UserError: naming what is missing or does not fit.
    """
    events = events_of(folder)
    event = trained_event(events, name, folder)
    begun = events[0]
    if missing := unrecorded(begun.get("config")):
        more = f" and {len(missing) - 1} more settings" if missing[1:] else ""
        raise UserError(f"{folder.journal} does not say {missing[0]}{more}: the trial can't be trained again without")
    if not isinstance(begun.get("corpus"), Mapping) or not begun["corpus"].get("sha256"):
        raise UserError(f"{folder.journal} does not say the sha256 of its corpus: there is no telling what to train on")
    settings = as_recorded(begun["config"])
    asked = [each for each in events if each["event"] == "ask" and each.get("trial") == name]
    told = [each for each in events if each["event"] == "rung" and each.get("trial") == name]
    try:
        trial = trial_from_json(event)
        rungs = [_rung(each) for each in told]
        problem = _problem(event, asked, trial, rungs, settings, begun["corpus"]["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"what {folder.journal} says of {name} is damaged ({_words(error)}): restore it") from error
    if problem:
        raise UserError(f"what {folder.journal} says of {name} is damaged: {problem}")
    return TrialRecord(folder, events, settings, trial, _score_of(trial), rungs, _environment(events, name))


def trained_event(events: Sequence[Event], name: str | None, folder: Folder) -> Event:
    """The event of a trial that has a score.

    Raises:
      UserError: if it is none, saying what became of it.
    """
    if name is None:
        raise UserError("the search has no best candidate: name one of its trials")
    ended = {event["id"]: event for event in events if event["event"] == "trial" and "id" in event}
    if name not in ended:
        if any(event["event"] == "ask" and event.get("trial") == name for event in events):
            raise UserError(
                f"{name} has not ended in {folder.journal}: nas search resume={folder.path} goes on with it"
            )
        scored = [trial for trial, event in ended.items() if _kind(event) == "fitness"]
        raise UserError(
            f"{printable(name)} is no trained trial of {folder.path}: there are {', '.join(scored) or 'none'}"
        )
    event = ended[name]
    kind, accepted = (
        _kind(event),
        any(
            each["event"] == "review" and each.get("trial") == name and each.get("decision") == "accept"
            for each in events
        ),
    )
    if kind == "fitness" or (kind == "held" and accepted):
        return event
    if kind == "held":
        raise UserError(
            f"{name} is held ({_words(event['outcome'].get('tripwire'))}): nas review {folder.path} comes first"
        )
    if kind in ("rejected", "crashed"):
        by = _words(event["outcome"].get("check") or event["outcome"].get("cause"))
        how = f"it was rejected by {by}" if kind == "rejected" else f"it crashed ({by})"
        raise UserError(f"{name} of {folder.path} has no score: {how}")
    raise UserError(f"what {folder.journal} says of {name} is damaged: it has no outcome")


def best_of(events: Sequence[Event]) -> str | None:
    """The best trial at the end of a search, if it has come to one."""
    ends = [event["best"] for event in events if event["event"] == "end" and event["best"]]
    return ends[-1] if ends else None


def _kind(event: Event) -> str | None:
    outcome = event.get("outcome")
    return outcome.get("kind") if isinstance(outcome, Mapping) else None


def _problem(
    event: Event, asked: Sequence[Event], trial: Trial, told: Sequence[Rung], settings: Settings, sha256: str
) -> str | None:
    """Where the lines of one trial do not fit each other, in words. Numbers that were measured are not looked at."""
    if len(asked) != 1:
        return f"{len(asked) or 'no'} lines hand it out"
    (ask,) = asked
    for line in (ask, event):
        if missing := [name for name in ("steps", "seed") if type(line["budget"].get(name)) is not int]:
            return f"its {' and '.join(missing)} {'are' if missing[1:] else 'is'} missing"
        if line["candidate"]["id"] != trial.candidate.id:
            return f"its source is not that of candidate {_words(line['candidate']['id'])}"
    for part in ("budget", "purpose"):
        if ask[part] != event[part]:
            return f"it was handed out with another {part}"
    if ask["candidate"]["source"] != trial.candidate.source:
        return "it was handed out with another source"
    if trial.budget.steps != settings.train.steps:
        return f"it has {trial.budget.steps} steps where the settings say {settings.train.steps}"
    if event.get("corpus", sha256) != sha256:
        return "it has another corpus than the search"
    fitness = _score_of(trial)
    steps = [step for step in rung_steps(settings) if step <= fitness.step]
    for rungs in (trial.rungs, told):
        if [rung.step for rung in rungs] != steps:
            return f"it was measured at steps {', '.join(str(rung.step) for rung in rungs) or 'none'}, not {steps}"
    if not steps or fitness.step != steps[-1]:
        return f"its score is of step {fitness.step}, at which nothing was measured"
    return None


def _score_of(trial: Trial) -> Fitness:
    """What it measured, accepted or not: whoever is here has a score (`trained_event`)."""
    fitness = trial.outcome.fitness if isinstance(trial.outcome, Held) else trial.outcome
    assert isinstance(fitness, Fitness)
    return fitness


def _rung(event: Event) -> Rung:
    return Rung(event["step"], event["bits_per_byte"])


def _environment(events: Sequence[Event], name: str) -> Event:
    """Of the run in which the trial ended; in part that of the first one where a journal does not say."""
    found: Event = {}
    for event in events:
        if event["event"] in ("search", "resume"):
            found |= {part: event[part] for part in ("versions", "machine", "sources") if part in event}
        if event["event"] == "trial" and event["id"] == name:
            break
    return found


def _words(value: Any) -> str:
    return printable(str(value))
