"""The noise of a configuration on a kind of machine, kept for the next search of it in `results_dir/.cache/` and,
if there is one, in the store.

It is a convenience: the journal of each search has the noise that was used in it, and a resume or a replay takes that.
"""

import importlib.metadata
import json
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.commands.measuring import kept_in
from nas.comparisons import baselines_of, rung_steps
from nas.journal import Event
from nas.noise import Noise, noise_from_json
from nas.settings import Settings
from nas.space import SearchSpace
from nas.store import Store
from nas.tasks.corpus import Corpus

_IN_STORE = "noise"
_LIBRARIES = ("jaxlib", "einops")  # beside those that every kept result depends on


def noise_file(settings: Settings, space: SearchSpace, corpus: Corpus) -> Path:
    """Where the noise of these settings is kept: a name made of all that it depends on.

    That is whatever a score depends on, and what is repeated and how often.
    """
    depends_on = {
        **terms(settings, corpus),
        "repeats": [settings.search.noise_seeds, settings.search.noise_baselines],
        "baselines": [candidate.id for candidate in baselines_of(settings, space)],
    }
    return kept_in(settings, "noise", depends_on)


def terms(settings: Settings, corpus: Corpus) -> dict[str, Any]:
    """What a candidate's score depends on, beside the sources and libraries that every kept result depends on.

    That is the model, the training and its seed, the task, the corpus, the rungs, and the kind of machine.
    """
    return {
        **{part: asdict(getattr(settings, part)) for part in ("model", "train", "task")},
        "corpus": corpus.sha256,
        "rungs": rung_steps(settings),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "machine": machine_kind(settings),
    }


def machine_kind(settings: Settings) -> dict[str, Any]:
    """What a training computes on: processors and accelerators by their model names, and the cluster if there is one.

    Found without JAX: the engine's own process holds no accelerator.
    """
    execution = settings.execution
    return {
        "processor": [platform.machine(), *_named(Path("/proc/cpuinfo"), "model name")[:1]],
        "accelerators": sorted(
            name for file in Path("/proc/driver/nvidia/gpus").glob("*/information") for name in _named(file, "Model")
        ),
        "tpus": len([*Path("/dev").glob("accel[0-9]*")]),
        "per_trial": [execution.gpus_per_trial > 0, execution.tpus_per_trial > 0],
        "cluster": execution.address,
    }


def _named(file: Path, name: str) -> list[str]:
    """The values of `name: value` in a file of /proc; none where there is no such file."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name]


def read_noise(file: Path, settings: Settings) -> tuple[Noise | None, str | None]:
    """(what is kept, why it can't be used in a sentence); neither where nothing is kept."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return None, f"the noise kept in {file} can't be read ({error}), so it is measured anew"
    try:
        return noise_from_json(json.loads(text), rung_steps(settings)), None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None, f"the noise kept in {file} is damaged, so it is measured anew"


def fetch_noise(store: Store, file: Path) -> None:
    """Fetches what another machine has measured, unless it is kept here.

    Raises:
      StoreError: if the store can't be read.
    """
    if not file.exists() and (content := store.get(f"{_IN_STORE}/{file.name}")) is not None:
        with suppress(OSError):
            _write(file, content.decode("utf-8", "replace"))


def bring_noise(store: Store, file: Path) -> None:
    """Brings what is kept here to the store, for other machines of this kind.

    Raises:
      StoreError: if the store can't be written.
    """
    with suppress(FileNotFoundError):
        store.put(f"{_IN_STORE}/{file.name}", file.read_bytes())


def keep_noise(file: Path, event: Event, settings: Settings) -> None:
    """Keeps what an event of the journal says was measured, if it is whole. A full disk loses only this."""
    if event["event"] != "noise" or event["source"] != "measured":
        return
    kept = {kind: event[kind] for kind in ("score", "difference")}
    if {str(step) for step in rung_steps(settings)} - kept["score"].keys():
        return
    with suppress(OSError):
        _write(file, json.dumps(kept))


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(text)
    os.replace(name, file)
