"""What a command hands to MLflow: a journal's events with the files beside them, and the registry. The journal is the
truth and MLflow a copy: what MLflow does not take is a line for the person, and changes nothing else."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

from nas import journal as journals
from nas.approvals import TRAIL, read_trail
from nas.commands.folder import JOURNAL, Folder
from nas.commands.proposing import with_prompt
from nas.journal import Event
from nas.settings import Settings, TrackingSettings

_LOGS = ("gate.log", "train.log", "rescore.log")
_LOG_BYTES = 16 * 1024  # of each: its end
Place = tuple[str, Path, str]  # store URI, artifact folder, experiment


def store_of(settings: Settings) -> tuple[str, Path]:
    """(store URI, artifact folder) of MLflow."""
    root = Path(settings.results_dir).resolve()
    return settings.tracking.uri or f"sqlite:///{root / 'mlflow.db'}", root / "mlartifacts"


def place_of(begun: Event, results_dir: Path, asked: Settings, overrides: Sequence[str]) -> Place | None:
    """Where a search is shown: as its own settings say, or an override does; None for nowhere.

    Args:
      begun: the event that its journal begins with.
      results_dir: where the search lies now.
      asked: what `overrides` make of the defaults.
    """
    tracking = asked.tracking
    if not any(override.lstrip("+").startswith("tracking") for override in overrides):
        known, names = begun["config"].get("tracking", {}), {field.name for field in fields(TrackingSettings)}
        tracking = TrackingSettings(**{name: value for name, value in known.items() if name in names})
    if tracking.kind == "none":
        return None
    uri, artifacts = store_of(replace(asked, tracking=tracking, results_dir=str(results_dir)))
    return uri, artifacts, tracking.experiment


def as_shown(folder: Folder, event: Event) -> Event:
    """An event with what lies beside the journal: the messages of a call, the log and the checkpoint of a trial."""
    if event["event"] != "trial":
        return with_prompt(folder.path, event)
    trial = folder.trial(event["id"])
    log = "\n".join(f"== {name}\n{text}" for name in _LOGS if (text := _end_of(trial / name)))
    outcome = event["outcome"]
    step = outcome.get("fitness", outcome).get("step")
    checkpoint = trial / "train" / "checkpoints" / f"{step or 0:08d}"
    there = step is not None and checkpoint.is_dir()
    return {**event, "files": {"log": log, "checkpoint": str(checkpoint.resolve()) if there else ""}}


def _end_of(path: Path) -> str:
    """The end of a log; nothing where there is none. What a trial left may be a link, which is not followed."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode):
                file.seek(max(about.st_size - _LOG_BYTES, 0))
                return file.read(_LOG_BYTES).decode("utf-8", "replace")
    return ""


def show(folder: Folder, place: Place | None) -> list[str]:
    """Writes to MLflow what it has not of a search; returns lines about what it has not taken."""
    if place is None:
        return []
    from nas.tracking import rebuild

    missing = rebuild((as_shown(folder, event) for event in journals.read(folder.journal)), *place)
    return ["MLflow has not taken everything; the journal has it all."] if missing else []


def attach(begun: Event, files: Sequence[Path], place: Place | None) -> list[str]:
    """Puts files beside a search's run in MLflow; returns lines about what it has not taken."""
    if place is None:
        return []
    from nas.tracking import NotWritten
    from nas.tracking import attach as attach_file

    try:
        for file in files:
            attach_file(begun, file, *place)
    except NotWritten as error:
        return [f"{error}."]
    return []


def show_registry(
    results_dir: Path, asked: Settings, overrides: Sequence[str], with_runs: bool = False
) -> tuple[list[str], list[str]]:
    """Writes MLflow's registry from the trail and the journals in `results_dir`.

    Args:
      asked: what `overrides` make of the defaults.
      with_runs: whether the runs of these searches are written too, as far as they are missing.

    Returns:
      (a line for each model that was written, a line for whatever was not).

    Raises:
      UserError: if the trail is damaged.
    """
    trail = read_trail(results_dir / TRAIL)
    told: list[str] = []
    troubles: list[str] = []
    places: dict[Place, list[list[Event]]] = {}
    for folder, events in _verified(results_dir, troubles):
        if place := place_of(events[0], results_dir, asked, overrides):
            places.setdefault(place, []).append(events)
            troubles += show(folder, place) if with_runs else []
    for place, searches in places.items():
        from nas.tracking import NotWritten, register

        try:
            told += register(searches, trail, *place)
        except NotWritten as error:
            troubles.append(f"{error}: nas audit registry writes it anew, from what was verified and decided.")
    return told, troubles


def _verified(results_dir: Path, troubles: list[str]) -> Iterator[tuple[Folder, list[Event]]]:
    """Each search of which anything was verified, with its events."""
    for path in sorted(results_dir.glob(f"*/{JOURNAL}")):
        try:
            if b'"verified"' not in path.read_bytes():
                continue
            events = journals.read(path)
        except (OSError, journals.JournalError) as error:
            troubles.append(f"{path.parent.name} is left out of the registry: {error}.")
            continue
        if events and events[0]["event"] == "search" and any(event["event"] == "verified" for event in events):
            yield Folder(path.parent), events
