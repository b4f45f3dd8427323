"""What numbers depend on beside settings and seeds: versions, the kind of machine, the sources of engine and space.

It is in the journal of a search, at its beginning and at each resume, so that a later training can say what is not as
it was.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from nas.commands.kept_noise import machine_kind
from nas.commands.measuring import source_files
from nas.settings import Settings
from nas.terminal import printable

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "ray", "orbax-checkpoint", "einops", "numpy")


def environment_of(settings: Settings) -> dict[str, Any]:
    """{"versions": name -> version, "machine": its kind, "sources": sha256 of those of engine and space}.

    The search space of the settings has to be loaded.
    """
    digest = hashlib.sha256()
    for file in source_files(settings):
        digest.update(file.read_bytes())
    return {
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        },
        "machine": machine_kind(settings),
        "sources": digest.hexdigest()[:12],
    }


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What is not as the journal says it was, in words; also where the journal does not say."""
    for part in ("versions", "machine"):
        was, now = recorded.get(part) or {}, here[part]
        for name in now:
            if name not in was:
                yield f"the journal does not say its {name}"
            elif was[name] != now[name]:
                yield f"{name} {_words(now[name])}, was {_words(was[name])}"
    was = recorded.get("sources") or "not noted"
    if was != here["sources"]:
        yield f"the sources of engine and space {here['sources']}, were {_words(was)}"


def _words(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return printable(" ".join(map(str, values))) or "none"
