"""Where searches of one configuration meet: a folder in `search.shared`, its name made of all they must agree in."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nas.commands.kept_noise import terms
from nas.commands.measuring import digest_of
from nas.guest_folder import SharedFolder, SharedPlace
from nas.guests import Guests, known_names
from nas.journal import Event
from nas.settings import Settings, is_url
from nas.store import Store
from nas.tasks.corpus import Corpus

_GATE = ("params", "flops_per_token")  # of the budget: what a candidate may be, beside its scores' terms


def guests_of(settings: Settings, corpus: Corpus, called: str, events: Sequence[Event]) -> Guests | None:
    """What lets guests into the search of this name; None for one that shares nothing.

    Args:
      events: of its journal so far.
    """
    if not settings.search.shared:
        return None
    agreed = {
        **terms(settings, corpus),
        "space": settings.search_space.module,
        "probe": asdict(settings.probe),
        "gate": {name: getattr(settings.budget, name) for name in _GATE},
    }
    where, name, known = settings.search.shared, digest_of(settings, agreed), known_names(events)
    folder = SharedPlace(Store(where), name, known) if is_url(where) else SharedFolder(Path(where) / name, known)
    return Guests(folder, called, settings, events)
