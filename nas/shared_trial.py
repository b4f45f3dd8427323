"""A trial on a machine that has nothing of its search but the specification: corpus and checkpoint come from a store.

Runs in the worker's process, outside the box: what is contained can't reach a network.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.probe_trial import run_probed_trial
from nas.sandbox import Box, Message
from nas.sharing.checkpoints import Shelf, trial_place
from nas.sharing.corpus import fetch_file, place_of
from nas.store import Store, StoreError
from nas.tasks.corpus import Corpus
from nas.trial import TrialSpec
from nas.types import Cost, Crashed, outcome_to_json

TROUBLE = "trouble"  # key of a sentence in a message: something that the person should know, and that stopped nothing
_LAST_SECONDS = 20.0  # that a trial waits for its last checkpoint to be in the store


@dataclass(frozen=True)
class Shared:
    """Where a trial's parts are for all machines. JSON values only.

    Attributes:
      store: URL.
      trial: the trial's place in it.
      corpus: name -> (place in the store, sha256) of each of the specification's files.
    """

    store: str
    trial: str
    corpus: Mapping[str, tuple[str, str]]


def shared(store: str, search: str, trial: str, corpus: Corpus) -> dict[str, Any]:
    """`TrialSpec.shared` of a trial."""
    place = place_of(corpus.sha256)
    files = {name: (f"{place}/{name}.bin", sha256) for name, sha256 in corpus.files.items()}
    return asdict(Shared(store, trial_place(search, trial), files))


def run_shared_trial(spec: TrialSpec, box: Box) -> Iterator[Message]:
    """`run_probed_trial`, with the store that the specification names, if it names one.

    What the machine lacks is fetched first, and the newest checkpoint is sent after each rung. A store that fails then
    costs no more than that: its trouble is told once, as "trouble" in a message.
    """
    if spec.shared is None:
        yield from run_probed_trial(spec, box)
        return
    told: set[str] = set()
    try:
        shelf = _prepared(spec, Shared(**spec.shared))
    except StoreError as error:
        crash = outcome_to_json(Crashed("infrastructure", str(error)))
        yield {"outcome": crash, "cost": asdict(Cost())}
        return
    messages: Any = run_probed_trial(spec, box)
    with closing(messages):
        for message in messages:
            if "rung" in message and not message.get("decided"):
                shelf.keep(message["rung"]["step"])
            elif "outcome" in message:
                if message["outcome"].get("cause") == "preempted":  # its checkpoint is between two rungs
                    shelf.keep_newest()
                shelf.wait(_LAST_SECONDS)
            if (trouble := shelf.trouble) and trouble not in told:
                told.add(trouble)
                message = {**message, TROUBLE: trouble}
            yield message


def _prepared(spec: TrialSpec, shared: Shared) -> Shelf:
    """The trial's shelf, after what this machine lacks was fetched.

    Raises:
      StoreError: if it can't be.
    """
    store = Store(shared.store)
    for name, path in spec.corpus.items():
        fetch_file(store, shared.corpus[name][0], Path(path), shared.corpus[name][1])
    shelf = Shelf(store, shared.trial, Path(spec.folder))
    shelf.fetch()
    return shelf
