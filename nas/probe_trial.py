"""(candidate, probe task) -> what each run of it found, trained in a contained process, seen from the engine.

Knows nothing of Ray, MLflow or Hydra; a specification is plain JSON, as a trial's is (see `nas.trial`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas import reports
from nas.sandbox import Box, Limits, Message
from nas.settings import Settings
from nas.tasks.probes import PROBES
from nas.trial import memory_bytes


@dataclass(frozen=True)
class ProbeSpec:
    """Everything that the runs of one candidate on one task need. JSON values only.

    Attributes:
      task: a name in `nas.tasks.probes.PROBES`.
      size: "tiny" | "published".
      steps: optimizer steps; None for the task's own.
      runs: (seed, peak learning rate) of each, in order.
      seconds: wall-clock of all of them together.
      accelerator: whether they get this machine's GPUs or TPUs.
      folder: the only one that the contained process may write to.
    """

    source: str
    task: str
    size: str
    steps: int | None
    runs: Sequence[tuple[int, float]]
    seconds: float
    memory_bytes: int
    accelerator: bool
    folder: str


def make_probe_spec(source: str, task: str, settings: Settings, folder: Path) -> ProbeSpec:
    """A task with every seed and learning rate of the settings, seed by seed."""
    probe = settings.probe
    rates = probe.learning_rates or PROBES[task].at(probe.size).learning_rates
    runs = [(seed, rate) for seed in range(settings.train.seed, settings.train.seed + probe.seeds) for rate in rates]
    return ProbeSpec(
        source=source,
        task=task,
        size=probe.size,
        steps=probe.steps,
        runs=runs,
        seconds=probe.timeout_seconds * len(runs),
        memory_bytes=memory_bytes(settings),
        accelerator=settings.execution.gpus_per_trial > 0 or settings.execution.tpus_per_trial > 0,
        folder=str(folder),
    )


def run_probe(spec: ProbeSpec, box: Box) -> list[dict[str, Any]]:
    """One result for each of `spec.runs`, in their order.

    Each has "seed" and "learning_rate", and either "accuracy" (tokens of an example, as text -> share of right answers
    in [0, 1]), "loss", "steps" and "seconds", or "crashed" (cause, reason). A run that its process did not come to, or
    told of in numbers that are none, has crashed.
    """
    arguments = {
        **{name: getattr(spec, name) for name in ("source", "task", "size", "steps", "accelerator")},
        "runs": [list(run) for run in spec.runs],
    }
    limits = Limits(spec.seconds, spec.memory_bytes, accelerator=spec.accelerator)
    times = PROBES[spec.task].at(spec.size).probe.scored_times
    found: list[dict[str, Any]] = []
    ended = {"cause": "killed", "reason": "its process sent what is no result"}
    for message in box.run("nas.probing:boxed", arguments, Path(spec.folder), limits):
        if "run" in message:
            run = _read(message, times)
            if run is None or spec.runs[len(found) : len(found) + 1] != [(run["seed"], run["learning_rate"])]:
                break
            found.append(run)
        elif "crashed" in message:
            ended = message["crashed"]
    return found + [_crashed(run, ended) for run in spec.runs[len(found) :]]


def _read(message: Message, times: Sequence[int]) -> dict[str, Any] | None:
    """A run as it was told of; None where that is none."""
    sent = message["run"] if isinstance(message["run"], dict) else {}
    if "crashed" in sent:
        failed = reports.read(reports.ProbeFailed, sent)
        return failed.model_dump() if failed else None
    probed = reports.read(reports.Probed, sent)
    if probed is None or len(probed.accuracy) != len(times):
        return None
    return {**probed.model_dump(), "accuracy": dict(zip(map(str, times), probed.accuracy, strict=True))}


def _crashed(run: tuple[int, float], crash: dict[str, str]) -> dict[str, Any]:
    seed, learning_rate = run
    cause, reason = crash["cause"], crash["reason"][-reports.MOST_LETTERS :]
    return {"seed": seed, "learning_rate": learning_rate, "crashed": {"cause": cause, "reason": reason}}
