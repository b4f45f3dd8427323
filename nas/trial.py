"""(candidate, budget) -> outcome: first the gate, then training, each in its own contained process.

Knows nothing of Ray, MLflow or Hydra. A specification is plain JSON, so that it can be sent to any worker.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas.fitness import fitness_of
from nas.sandbox import Box, Limits, Message
from nas.settings import Settings
from nas.tasks.corpus import Corpus
from nas.types import Certificate, Cost, Rejected, outcome_to_json

GIB = 2**30
PRELOAD = ("jax", "flax.nnx", "optax", "orbax.checkpoint", "einops", "nas.gate.boxed", "nas.train")


@dataclass(frozen=True)
class TrialSpec:
    """Everything a worker needs to run one trial. JSON values only.

    Attributes:
      gate: arguments of the gate's settings; None for a candidate that has its certificate or needs none.
      rungs: optimizer steps at which to measure; the last is the budget.
      floor: bits per byte above which it is ended before its budget is spent; None for baselines and confirmations.
      folder: the trial's own scratch folder; checkpoints live in it.
    """

    source: str
    gate: dict[str, Any] | None
    gate_seconds: float
    memory_bytes: int
    model: dict[str, Any]
    train: dict[str, Any]
    corpus: dict[str, Any]
    validation_windows: int
    rungs: Sequence[int]
    floor: float | None
    fitness: str
    folder: str


def make_spec(
    source: str,
    settings: Settings,
    corpus: Corpus,
    *,
    gate: dict[str, Any] | None,
    rungs: Sequence[int],
    floored: bool,
    seed: int,
    folder: Path,
) -> TrialSpec:
    """The specification of one trial under these settings. The training process is told of no test split."""
    return TrialSpec(
        source=source,
        gate=gate,
        gate_seconds=settings.budget.gate_seconds,
        memory_bytes=memory_bytes(settings),
        model=asdict(settings.model),
        train=asdict(replace(settings.train, seed=seed)),
        corpus=asdict(corpus),
        validation_windows=settings.task.validation_windows,
        rungs=list(rungs),
        floor=corpus.bigram_bits_per_byte if floored else None,
        fitness=settings.fitness.kind,
        folder=str(folder),
    )


def memory_bytes(settings: Settings) -> int:
    """Resident memory of one contained process."""
    return round(settings.budget.memory_gib * GIB)


def gate_arguments(
    settings: Settings, allowed_imports: Sequence[str], known: dict[str, str], reference_flops: float | None
) -> dict[str, Any]:
    """Arguments of the gate's settings: the shapes of training, the caps of the budget, what was tried before."""
    cap = settings.budget.flops_per_token
    return {
        "width": settings.model.width,
        "heads": settings.model.heads,
        "train_time": settings.train.time,
        "allowed_imports": sorted(allowed_imports),
        "max_params": round(min(settings.budget.params, settings.model.layer_params - 1) * settings.model.width**2),
        "max_flops_per_token": cap * reference_flops if reference_flops else None,
        "known": known,
    }


def run_trial(spec: TrialSpec, box: Box) -> Iterator[Message]:
    """Runs one trial, yielding what happens as it happens.

    Yields {"certificate": {...}} once the gate has passed it, {"rung": {...}, "cost": {...}} at each rung, and last
    {"outcome": {"kind": ..., ...}, "cost": {...}}. Closing the iterator stops the trial; its checkpoint stays.
    """
    started = time.monotonic()
    cost = Cost()
    if spec.gate is not None:
        verdict = run_gate(
            spec.source, spec.gate, box, Path(spec.folder) / "gate", spec.gate_seconds, spec.memory_bytes
        )
        cost = replace(cost, gate_seconds=time.monotonic() - started)
        if "certificate" not in verdict:
            yield {"outcome": verdict["outcome"], "cost": asdict(_total(cost, started))}
            return
        yield {"certificate": verdict["certificate"]}
    training = time.monotonic()
    measured: dict[str, Any] | None = None
    limits = Limits(seconds=spec.train["timeout_seconds"], memory_bytes=spec.memory_bytes)
    arguments = {**asdict(spec), "checkpoints": str(Path(spec.folder) / "checkpoints")}
    outcome: dict[str, Any] = {}
    for message in box.run("nas.train:boxed", arguments, Path(spec.folder), limits):
        if "rung" in message:
            measured = message["rung"]
            if not _is_measurement(measured):
                outcome = _crashed("killed", "its process sent a measurement that is not one")
                break
            yield {**message, "cost": asdict(_trained(cost, training, started))}
        else:
            ended = message if "crashed" in message else message.get("result")
            if isinstance(ended, dict) and isinstance(ended.get("crashed"), dict):
                outcome = _crashed(**ended["crashed"])
    outcome = outcome or fitness_json(measured, spec.fitness)
    yield {"outcome": outcome, "cost": asdict(_trained(cost, training, started))}


def run_gate(
    source: str, gate: dict[str, Any], box: Box, scratch: Path, seconds: float, memory_bytes: int
) -> dict[str, Any]:
    """{"certificate": {...}}, or {"outcome": {"kind": "rejected" | "crashed", ...}, "passed": [checks before it]}.

    A candidate that does not come back from a check, or takes its process with it, has failed that check.
    """
    begun: list[str] = []
    arguments = {"source": source, "settings": gate}
    for message in box.run("nas.gate.boxed:boxed", arguments, scratch, Limits(seconds, memory_bytes)):
        if "started" in message:
            begun.append(str(message["started"]))
        elif "result" in message:
            return {**_verdict(message["result"]), "passed": begun[:-1]}
        elif "crashed" in message:
            crash = message["crashed"]
            if crash["cause"] not in ("timeout", "memory", "killed"):
                return {"outcome": _crashed(**crash)}
            check = begun[-1] if begun else "static"
            reason = f"while it was checked, {crash['reason']}"
            return {"outcome": {"kind": "rejected", "check": check, "reason": reason}, "passed": begun[:-1]}
    return {"outcome": _crashed("infrastructure", "the gate gave no verdict")}


def _verdict(result: Any) -> dict[str, Any]:
    """What the gate's process sent, if that is a verdict: a candidate that breaks out of its code can send anything."""
    try:
        if "rejected" in result:
            rejected = result["rejected"]
            return {"outcome": outcome_to_json(Rejected(str(rejected["check"]), str(rejected["reason"])))}
        sent = result["certificate"]
        checks = {str(name): str(seen) for name, seen in sent["checks"].items()}
        certificate = Certificate(**{**sent, "checks": checks, "fingerprint": str(sent["fingerprint"])})
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"outcome": _crashed("killed", "the gate's process sent a verdict that is not one")}
    return {"certificate": asdict(certificate)}


def fitness_json(measured: dict[str, Any] | None, fitness: str) -> dict[str, Any]:
    """The outcome of a trial that trained to its last rung, or was stopped at one, as JSON values."""
    if measured is None:
        return _crashed("killed", "its process ended without a measurement")
    outcome = fitness_of(measured, fitness)
    return outcome_to_json(outcome)


def _is_measurement(measured: Any) -> bool:
    return isinstance(measured, dict) and all(
        isinstance(measured.get(name), int | float) and abs(measured[name]) < math.inf
        for name in (
            *("step", "bits_per_byte", "stderr", "train_seconds"),
            *("tokens_per_second", "peak_bytes", "flops_per_token", "params"),
        )
    )


def _crashed(cause: object = "killed", reason: object = "", **forged: object) -> dict[str, Any]:
    return {"kind": "crashed", "cause": str(cause), "reason": str(reason)[-4000:]}


def _trained(cost: Cost, training: float, started: float) -> Cost:
    return _total(replace(cost, train_seconds=time.monotonic() - training), started)


def _total(cost: Cost, started: float) -> Cost:
    return replace(cost, total_seconds=time.monotonic() - started)
