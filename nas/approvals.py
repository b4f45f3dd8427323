"""What persons have decided about verified architectures: an append-only file in which each line hashes the one before.

Nothing is ever taken out: a roll-back is a line of its own. A line says who decided what, when and why, and has hashes
of what was seen; so a line that is changed, moved or taken out afterwards breaks the chain (hash chaining: Haber and
Stornetta 1991). Lines cut off at the end leave a shorter chain that is whole: who wants to know of that, keeps the head
that `nas audit` prints.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import journal as journals
from nas.errors import UserError
from nas.journal import Event, Journal
from nas.types import Candidate, candidate_from_json, candidate_to_json

TRAIL = "approvals.jsonl"
ACTIONS = {"approve": "approved", "reject": "rejected", "rollback": "rolled back"}
_START = "0" * 64  # what the first line has for the hash of the one before


@dataclass(frozen=True)
class Decision:
    """A person's word on a verified architecture.

    Attributes:
      action: "approve" (it is a baseline of later searches) | "reject" | "rollback" (of an approval).
      space: module of the search space that it belongs to.
      search, trial: where it was found.
      verdict: of its verification.
      by, why: who decides, and why, in a sentence.
      seen: what the decision rests on -> sha256 of that.
    """

    action: str
    candidate: Candidate
    space: str
    search: str
    trial: str
    verdict: str | None
    by: str
    why: str
    seen: Mapping[str, str]


def decide(path: Path, decision: Decision) -> Event:
    """Writes a decision at the end of the trail; returns it as written.

    Raises:
      UserError: if the trail is damaged, is being written, or the decision does not follow from what was decided.
    """
    with closing(Journal(path)) as journal:  # under its lock: nobody else adds a line meanwhile
        events = read_trail(path)
        _check_follows(decision, events)
        body = {
            "event": decision.action,
            "number": len(events) + 1,
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "candidate": candidate_to_json(decision.candidate),
            **{name: getattr(decision, name) for name in ("space", "search", "trial", "verdict", "by", "why")},
            "seen": dict(decision.seen),
            "previous": events[-1]["hash"] if events else _START,
        }
        return journal.append({**body, "hash": _hash(body)})


def read_trail(path: Path) -> list[Event]:
    """Its lines, oldest first; none if nothing was decided yet.

    Raises:
      UserError: if the chain is broken, with the first line that does not fit.
    """
    if not path.exists():
        return []
    events = journals.read(path)
    if problem := broken(events):
        raise UserError(f"{path} was changed: {problem}; restore it from a copy")
    return events


def broken(events: Sequence[Event]) -> str | None:
    """Where the chain breaks, in words; None if it is whole."""
    previous = _START
    for number, event in enumerate(events, 1):
        body = {name: value for name, value in event.items() if name not in ("hash", "time")}
        if event.get("previous") != previous or event.get("number") != number:
            return f"line {number} does not follow the one before it"
        if event.get("hash") != _hash(body):
            return f"line {number} is not what was decided"
        previous = event["hash"]
    return None


def approved(events: Iterable[Event], space: str | None = None) -> dict[str, Candidate]:
    """Candidate id -> candidate of those that stand approved (in this space), in the order of their approval."""
    found: dict[str, Candidate] = {}
    for event in events:
        if space not in (None, event["space"]):
            continue
        candidate = candidate_from_json(event["candidate"])
        found.pop(candidate.id, None)
        if event["event"] == "approve":
            found[candidate.id] = candidate
    return found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash(body: Mapping[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _check_follows(decision: Decision, events: Sequence[Event]) -> None:
    stands = decision.candidate.id in approved(events)
    if decision.action == "rollback" and not stands:
        raise UserError(f"{decision.candidate.id} is not approved: there is nothing to roll back")
    if decision.action != "rollback" and stands:
        raise UserError(f"{decision.candidate.id} is approved already: nas rollback takes it back")
