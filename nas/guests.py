"""Candidates that other searches have trained, as guests of this one: searches that share a folder learn together.

A search leaves there what it has trained to the end, and takes in what others have left. A guest may become a parent,
and is nothing new any more: it is not trained here. So it costs no budget, earns no operator anything, and is no result
of this search. That it was taken in is an event of the journal, and the folder is not asked about it again: neither a
resume nor a replay hangs on what lies there by then.

What lies there is anybody's text. Its shape and its numbers are held to what a contained process may report. Its source
is parsed, as every candidate's is, and run nowhere; its children are, in a box and after the gate. So who can write
there can mislead a search about what is worth changing, as a bad measurement would, and no further than the tripwires
let it: nothing is taken in that would be held here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, replace
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import TypeAdapter

from nas.comparisons import rung_steps
from nas.guest_folder import SharedFolder, SharedPlace
from nas.journal import Event
from nas.reports import Certified, Measured, read
from nas.settings import Settings
from nas.terminal import printable
from nas.types import Budget, Fitness, Trial, trial_from_json, trial_to_json
from nas.verify import trained, trials_of

_TRIAL = TypeAdapter(Trial)
_NAME = re.compile(r"[\w-]+\.t\d+")  # SEARCH.TRIAL


def known_names(events: Sequence[Event]) -> set[str]:
    """What the search with this journal has taken from the folder already, whatever became of it."""
    taken = {event["id"] for event in events if event["event"] == "guest"}
    return taken | {event["file"] for event in events if event["event"] == "notice" and event.get("file")}


class Guests:
    """Between one search and the folder. All work with files is the executor's: a slow folder holds nobody up.

    Args:
      called: the search's own name, for people.
      events: of its journal so far.
      executor: does one thing at a time, in order.
    """

    def __init__(
        self,
        folder: SharedFolder | SharedPlace,
        called: str,
        settings: Settings,
        events: Sequence[Event] = (),
        executor: Executor | None = None,
    ):
        self._folder = folder
        self._called = called
        self._settings = settings
        self._name = _unique(called, events[0]) if events else ""
        self._arrived: SimpleQueue[Event] = SimpleQueue()
        self._failed = False
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="guests")
        self._submit(lambda: self._publish(*trials_of(events)))

    def take(self, event: Event) -> None:
        """Takes in an event of the journal: publishes what was trained, and looks for what others have left."""
        if event["event"] == "search":
            self._name = _unique(self._called, event)
        elif event["event"] == "trial":
            self._submit(lambda: self._publish(trial_from_json(event)))
        if event["event"] in ("search", "resume", "trial"):
            self._submit(self._look)

    def next(self) -> Event | None:
        """The next guest, or a notice of a file that is none; None if there is nothing for now."""
        try:
            return self._arrived.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Waits until everything is published."""
        self._executor.shutdown(wait=True)

    def _submit(self, work: Callable[[], Any]) -> None:
        def safely() -> None:
            try:
                work()
            except Exception as error:  # the search goes on alone, and says so once
                if not self._failed:
                    self._failed = True
                    self._say(f"nothing is shared in {self._folder.path}: {type(error).__name__} {error}")

        self._executor.submit(safely)

    def _publish(self, *trials: Trial) -> None:
        for trial in trained(trials, "search"):
            self._folder.publish(f"{self._name}.{trial.id}", trial_to_json(trial))

    def _look(self) -> None:
        for name, content in self._folder.new():
            if name.startswith(f"{self._name}."):
                continue  # its own, of a journal that somebody has cut
            try:
                guest = guest_of(name, content, self._settings)
            except ValueError:
                self._say(f"{self._folder.path}: {name} is not what a search leaves there: passed over", file=name)
            else:
                self._arrived.put({"event": "guest", **trial_to_json(guest)})

    def _say(self, reason: str, **further: str) -> None:
        self._arrived.put({"event": "notice", "tripwire": "shared", "reason": printable(reason), **further})


def guest_of(name: str, content: bytes | None, settings: Settings) -> Trial:
    """The trial that another search has left, as a guest under the settings of this one.

    Raises:
      ValueError: if it is none, or was trained otherwise than its folder says.
    """
    if content is None or not _NAME.fullmatch(name):
        raise ValueError("no record")
    trial = _TRIAL.validate_json(content, strict=True)
    outcome, certificate = trial.outcome, trial.certificate
    if trial.budget != Budget(settings.train.steps, settings.train.seed) or not isinstance(outcome, Fitness):
        raise ValueError("not trained to the end")
    if [rung.step for rung in trial.rungs] != list(rung_steps(settings)) or outcome.step != trial.rungs[-1].step:
        raise ValueError("measured at other steps")
    measured = {**asdict(outcome), "train_seconds": trial.cost.train_seconds}
    if not read(Measured, measured) or certificate is None or not read(Certified, asdict(certificate)):
        raise ValueError("numbers that no worker reports")
    score = -outcome.bits_per_byte  # of which the search makes its own: the other may have had another fitness
    return replace(trial, id=name, purpose="guest", outcome=replace(outcome, score=score), stopped=False)


def _unique(called: str, begun: Event) -> str:
    """A name that no other search has: of the same name there may be one in another folder, or one that is gone."""
    digest = hashlib.sha256(json.dumps([called, begun], sort_keys=True).encode()).hexdigest()
    return "-".join([*re.findall(r"[\w-]+", called), digest[:8]])
