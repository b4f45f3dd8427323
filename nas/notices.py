"""What a person is told of once: that the search has collapsed onto one kind, that a rung does not carry over.

Each notice is an event of the journal. What is due is found from the trials, and is no longer due once the journal has
it: so a notice that a kill came before is made good on resume, and none is made twice.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from nas import tripwires
from nas.fidelity import Audit, Fidelity
from nas.journal import Event
from nas.settings import TripwireSettings


class Notices:
    """Watches a search.

    Args:
      choice: whether there is more than one operator to choose from.
      audit: of the rungs; a rung is in doubt from the notice of it on.
    """

    def __init__(self, settings: TripwireSettings, choice: bool, audit: Audit):
        self._settings = settings
        self._choice = choice
        self._audit = audit
        self._families: deque[str] = deque(maxlen=settings.collapse_window)  # of trained candidates
        self._operators: deque[str] = deque(maxlen=settings.collapse_window)  # of proposals
        self._collapsed = False  # since the last notice
        self._due: dict[str, Event] = {}

    def proposed(self, operator: str) -> None:
        self._operators.append(operator)

    def trained(self, family: str) -> None:
        self._families.append(family)

    def look(self) -> None:
        """Once after each trial that has ended."""
        found = tripwires.collapse(list(self._families), list(self._operators) if self._choice else [], self._settings)
        if found and not self._collapsed:
            self._due["collapse"] = {"event": "notice", "tripwire": "collapse", **found}
        self._collapsed = found is not None
        for rung in self._audit.failing():
            if not self._audit.doubted(rung.step):
                self._due.setdefault(f"fidelity {rung.step}", _in_doubt(rung))

    def due(self) -> list[Event]:
        """What the journal does not have yet."""
        return list(self._due.values())

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes in a notice of the journal."""
        if event["tripwire"] == "collapse":
            self._due.pop("collapse", None)
        elif event["tripwire"] == "fidelity":
            self._due.pop(f"fidelity {event['step']}", None)
            self._audit.doubt(event["step"])


def _in_doubt(found: Fidelity) -> Event:
    reason = (
        f"{found}: what is gained there does not carry over, and counts {max(0.0, found.correlation):.2f} of a gain "
        "from now on, by the correlation as it is then"
    )
    return {"event": "notice", "tripwire": "fidelity", "step": found.step, "reason": reason}
