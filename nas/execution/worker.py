"""A warm Ray worker: it keeps one zygote, and runs one trial after another in contained children of it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune

from nas.execution.scheduler import DECIDED, METRIC, STEP
from nas.preemption import Preempted
from nas.sandbox import Box, Message
from nas.shared_trial import run_shared_trial
from nas.trial import PRELOAD, TrialSpec


class TrialWorker(tune.Trainable):
    """One step of this trainable is one event of a trial: a rung, or the outcome.

    Its config is {"trial": id, "spec": JSON of a `TrialSpec`, "cpus": threads, "gpus": reserved, "preload": modules,
    "sandbox": tier}. Which accelerators are its own, Ray says in its environment, once for all its trials.
    After the outcome, or when the scheduler stops the trial, Ray reuses the process for the next one. On SIGTERM, the
    notice that its machine is taken away, it passes that on to the training, which writes a checkpoint of where it is,
    and tells of no outcome any more: `Preempted` is raised, and Ray runs the trial elsewhere.
    """

    _certificate: dict[str, Any] | None = None
    _noticed = False

    def setup(self, config: dict[str, Any]) -> None:
        self._without_work = signal.signal(signal.SIGTERM, self._take_notice)
        modules, folder = (*PRELOAD, *config["preload"]), _folder_of_trials(config)
        self._box = Box(modules, config["cpus"], config["sandbox"], folder, config["gpus"])
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        for message in self._messages:
            if "certificate" in message:
                self._certificate = message["certificate"]
            elif "rung" in message:
                rung, decided = message["rung"], bool(message.get("decided"))
                measures = {STEP: rung["step"], METRIC: rung["bits_per_byte"], DECIDED: decided}
                return {**measures, **self._payload(message)}
            elif self._noticed or message["outcome"].get("cause") == "preempted":
                raise Preempted(self._noticed)  # whatever this outcome is, it may come of the signal
            else:
                return {"done": True, **self._payload(message)}
        raise RuntimeError("the trial ended without an outcome")

    def _payload(self, message: Message) -> dict[str, Any]:
        """As text: Tune flattens whatever is nested in a result."""
        return {"event": json.dumps(message), "certificate": json.dumps(self._certificate)}

    def cleanup(self) -> None:
        self._end()
        self._box.close()

    def _take_notice(self, number: int, frame: FrameType | None) -> None:
        if self._noticed or not self._box.give_notice():
            signal.signal(signal.SIGTERM, self._without_work)
            signal.raise_signal(signal.SIGTERM)
        self._noticed = True

    def _begin(self, config: dict[str, Any]) -> None:
        self._certificate = None
        self._messages: Iterator[Message] = run_shared_trial(TrialSpec(**json.loads(config["spec"])), self._box)

    def _end(self) -> None:
        self._messages.close()  # type: ignore[attr-defined]  # a generator: this kills what it runs


def _folder_of_trials(config: dict[str, Any]) -> Path:
    """Where this search keeps its trials: their folders are the scratch folders of one worker's calls."""
    return Path(json.loads(config["spec"])["folder"]).parent
