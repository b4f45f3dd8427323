"""(candidate, probe task) -> what each run of it found, trained in a contained process, seen from the engine.

And a trial with probe tasks: as its first and cheapest rung, which a candidate has to pass, or after its last, where
they describe what was found. Knows nothing of Ray, MLflow or Hydra; a specification is plain JSON, as a trial's is
(see `nas.trial`).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas import reports
from nas.sandbox import Box, Limits, Message
from nas.settings import Settings
from nas.tasks.probes import PROBES
from nas.trial import TrialSpec, memory_bytes, run_trial
from nas.types import Crashed, outcome_to_json


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
        accelerator=settings.execution.accelerated,
        folder=str(folder),
    )


def trial_probes(source: str, settings: Settings, folder: Path) -> list[dict[str, Any]]:
    """Each probe task of the settings for a trial, as JSON values; none with `probe=none`."""
    if settings.probe.size == "none":
        return []
    tasks = [name for name in PROBES if name in settings.probe.tasks or not settings.probe.tasks]
    return [asdict(make_probe_spec(source, task, settings, folder / "probe" / task)) for task in tasks]


def run_probed_trial(spec: TrialSpec, box: Box) -> Iterator[Message]:
    """`run_trial`, with the probe tasks of the specification.

    With `probes_first` they come between gate and training, and a candidate that has a share of right answers under
    `least` on one of them ends there as Crashed("floor"). Otherwise they come last, for who was trained to the end.
    """
    scores: dict[str, float] = {}
    seconds, started = 0.0, time.monotonic()

    def probe() -> None:
        nonlocal seconds
        began = time.monotonic()
        scores.update({each["task"]: score_of(run_probe(ProbeSpec(**each), box)) for each in spec.probes})
        seconds = time.monotonic() - began

    messages: Any = run_trial(spec, box)
    with closing(messages):
        for message in messages:
            outcome = message.get("outcome")
            if outcome and outcome["kind"] == "fitness" and outcome["step"] == spec.rungs[-1] and not scores:
                probe()
            if outcome and outcome["kind"] == "fitness":
                message = {**message, "outcome": {**outcome, "probes": dict(scores)}}
            yield {**message, "cost": _with(message["cost"], seconds)} if "cost" in message else message
            if "certificate" in message and spec.probes_first:
                gate = time.monotonic() - started
                probe()
                failed = [task for task, score in scores.items() if spec.least is not None and score < spec.least]
                if failed:
                    reason = f"{failed[0]}: {scores[failed[0]]:.3f} of the answers are right, under {spec.least:g}"
                    cost = _with({"gate_seconds": gate, "train_seconds": 0.0, "total_seconds": gate}, seconds)
                    yield {"outcome": outcome_to_json(Crashed("floor", reason)), "cost": cost}
                    return


def _with(cost: Mapping[str, float], seconds: float) -> dict[str, float]:
    """A cost with seconds of probing: they are training too."""
    more = {name: cost[name] + seconds for name in ("train_seconds", "total_seconds")}
    return {**cost, **more}


def score_of(runs: Sequence[Mapping[str, Any]]) -> float:
    """Share of right answers over seeds and scored lengths, at the best learning rate; 0 if a seed crashed at each."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        right = run.get("accuracy")
        by_rate.setdefault(run["learning_rate"], []).append(sum(right.values()) / len(right) if right else -1.0)
    return max((sum(rights) / len(rights) for rights in by_rate.values() if min(rights) >= 0), default=0.0)


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
