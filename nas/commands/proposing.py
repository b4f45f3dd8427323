"""Who proposes in a search: by its settings, its folder, and, for a replay, the record of another search."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

from nas import journal as journals
from nas import knowledge
from nas.configuration import as_recorded
from nas.errors import UserError
from nas.journal import Event
from nas.llm.client import key_of as key_in
from nas.proposers import AheadProposer, make_proposer
from nas.replay import Script
from nas.settings import ProposerSettings, Settings
from nas.space import SearchSpace

_SHORTEST_KEY = 8
PROMPTS = "prompts"  # folder of the prompts that were sent, by their hash


@dataclass(frozen=True)
class Record:
    """An earlier search: its folder's name, its settings with the proposer that it really had, its events."""

    name: str
    settings: Settings
    events: Sequence[Event]


def record_at(folder: Path) -> Record:
    """The search in a folder.

    Raises:
      UserError: if there is none.
    """
    events = journals.read(folder / "journal.jsonl")
    if not events or events[0]["event"] != "search":
        raise journals.JournalError(f"proposer.path={folder}: there is no search in this folder")
    settings = as_recorded(events[0]["config"])
    if settings.proposer.kind == "replay":  # of a replay: what it replayed
        settings = replace(settings, proposer=ProposerSettings(**events[0]["proposer"]))
    return Record(folder.name, settings, events)


def check(settings: Settings, space: SearchSpace) -> None:
    """Raises UserError for a file, a prompt or an address that can't be used, before anything else is begun."""
    if settings.proposer.kind == "llm":
        _team().check(settings)
    elif settings.proposer.kind != "replay":
        make_proposer(settings.proposer, space)


def _team() -> ModuleType:
    """What puts the LLM proposer together.

    Raises:
      UserError: if its libraries are not installed: the engine itself does without them.
    """
    try:
        from nas.commands import team
    except ImportError as error:
        raise UserError(f"{error}: proposer=llm needs the extra llm: make llm, or pip install 'nas[llm]'") from error
    return team


def proposer_of(
    settings: Settings,
    space: SearchSpace,
    folder: Path,
    events: Sequence[Event],
    note: Callable[[Event], None],
    record: Record | None,
    key: str | None,
) -> AheadProposer | None:
    """Who works ahead in this search; None for a proposer that the search waits for.

    Args:
      settings: with the proposer that the record had, in a replay.
      events: of this search so far.
      note: takes the events of the proposer's jobs.
      key: of the endpoint, unless there is a record.

    Raises:
      UserError: if there is no endpoint, no library, or a damaged note.
    """
    if settings.proposer.kind != "llm":
        return None
    known = knowledge.load([*([space.notes] if space.notes else []), Path(settings.notes_dir)])
    made: AheadProposer
    if record or key is None:
        assert record is not None
        made = _team().replaying(settings, space, known, record.events, note)
    else:
        made = _team().asking(settings, space, known, key, events, note, _keep_in(folder / PROMPTS, key))
    return made


def script_of(record: Record | None) -> Script | None:
    return Script(record.events) if record else None


def key_of(settings: Settings) -> str | None:
    """The key of the endpoint that this search asks; None if it asks nobody.

    It is taken out of the environment: no process that is started later inherits it.

    Raises:
      UserError: if the key is missing, can't be sent, or stands in the settings, which are written down.
    """
    if settings.proposer.kind != "llm":
        return None
    key = key_in(settings.llm, os.environ)
    if secret(key) and key in json.dumps(asdict(settings)):
        raise UserError(
            "the key stands in the settings, which are written down: it belongs into the environment variable "
            f"{settings.llm.key_env} alone"
        )
    return key


def secret(key: str | None) -> str | None:
    """What must be written nowhere: the key, if it is one; servers without keys are sent any word."""
    return key if key and len(key) >= _SHORTEST_KEY else None


def _keep_in(folder: Path, key: str) -> Callable[[str, Event], None]:
    def keep(sha256: str, request: Event) -> None:
        try:
            folder.mkdir(exist_ok=True)
            text = journals.without_secret(json.dumps(request, indent=1), secret(key))
            (folder / f"{sha256}.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"the prompt can't be kept in {folder}: {error.strerror}") from error

    return keep


def with_prompt(folder: Path, event: Event) -> Event:
    """A completion with the messages that it answers, where they are kept."""
    if event["event"] not in ("completion", "call_failed"):
        return event
    try:
        request = json.loads((folder / PROMPTS / f"{event['prompt']}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return event
    return {**event, "messages": request["messages"]}
