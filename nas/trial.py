"""(candidate, budget) -> outcome: the gate, training, rescoring of contenders, each in a contained process of its own.

Knows nothing of Ray, MLflow or Hydra. A specification is plain JSON, so that it can be sent to any worker.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas import compiled, reports
from nas.fitness import fitness_of
from nas.gate.settings import CHECKS
from nas.sandbox import Box, Limits, Message
from nas.settings import ModelSettings, Settings, TrainSettings
from nas.tasks.corpus import Corpus
from nas.types import Certificate, Cost, Fitness, Held, Rejected, outcome_to_json

GIB = 2**30
PRELOAD = (
    *("jax", "flax.nnx", "optax", "orbax.checkpoint", "einops"),
    *("nas.gate.boxed", "nas.train", "nas.rescore", "nas.repeated"),
)
PROBING = "nas.probing"  # where there are probe tasks
ANY = 8.0  # bits per byte: whoever knows anything about text is below
_RESCORE_SECONDS = 300.0
_CHECKPOINT_BYTES = 13  # a parameter: itself and two moments in float32, and what is written beside them
_CHECKPOINTS = 3  # the last, the one that takes its place, and room
_MOST_LETTERS = 4000  # of a reason
_JAX_EXCUSE = "For simplicity, JAX has removed its internal frames"  # below an error


@dataclass(frozen=True)
class TrialSpec:
    """Everything a worker needs to run one trial. JSON values only.

    Attributes:
      gate: arguments of the gate's settings; None for a candidate that has its certificate or needs none.
      accelerator: whether training gets this machine's GPUs or TPUs, and
      devices: over how many of them its batches are shared out; None for all that its process sees.
      rungs: optimizer steps at which to measure; the last is the budget.
      floor: bits per byte above which it is ended before its budget is spent; None for baselines and confirmations.
      contends_below: if it ends under so many bits per byte it is rescored from its checkpoint; None: it never is.
      tolerance: bits per byte by which the rescored value may differ from the trained one.
      corpus: name -> file: the splits "train", "validation" and "reserve", and "token_bytes".
      vocabulary, dtype: how many tokens there are, and what the splits' files hold.
      device_bytes: training tokens of no more than so many bytes are kept on an accelerator.
      folder: the trial's own folder. What a contained process may write to is a folder in it of its own: `gate`,
        `train` with the checkpoints, `rescore`. So no call can plant anything in the way of the next.
      compiled: folder in which the compiled programs of candidates are kept (see `nas.compiled`); None: nowhere.
      shared: where all machines find corpus and checkpoints (see `nas.shared_trial`); None: in these very folders.
      probes, probes_first, least: probe tasks, whether they come before the training, and the share of right answers
        that each then asks for, None for none (see `nas.probe_trial`).
    """

    source: str
    gate: dict[str, Any] | None
    gate_seconds: float
    memory_bytes: int
    accelerator: bool
    model: dict[str, Any]
    train: dict[str, Any]
    corpus: dict[str, str]
    vocabulary: int
    dtype: str
    device_bytes: int
    validation_windows: int
    rungs: Sequence[int]
    floor: float | None
    contends_below: float | None
    tolerance: float
    fitness: str
    folder: str
    compiled: str | None = None
    devices: int | None = 1
    shared: dict[str, Any] | None = None
    probes: Sequence[dict[str, Any]] = ()
    probes_first: bool = False
    least: float | None = None


def make_spec(
    source: str,
    settings: Settings,
    corpus: Corpus,
    *,
    gate: dict[str, Any] | None,
    rungs: Sequence[int],
    floored: bool,
    contends_below: float | None,
    seed: int,
    folder: Path,
    compiled: Path | None = None,
) -> TrialSpec:
    """The specification of one trial under these settings. The test split is not in it."""
    return TrialSpec(
        source=source,
        gate=gate,
        gate_seconds=settings.budget.gate_seconds,
        memory_bytes=memory_bytes(settings),
        accelerator=settings.execution.accelerated,
        devices=settings.execution.devices,
        model=asdict(settings.model),
        train=asdict(replace(settings.train, seed=seed)),
        corpus={name: str(corpus.file(name)) for name in ("train", "validation", "reserve", "token_bytes")},
        vocabulary=corpus.vocabulary,
        dtype=corpus.dtype,
        device_bytes=round(settings.execution.device_gib * GIB),
        validation_windows=settings.task.validation_windows,
        rungs=list(rungs),
        floor=corpus.bigram_bits_per_byte if floored else None,
        contends_below=contends_below,
        tolerance=settings.tripwire.rescore,
        fitness=settings.fitness.kind,
        folder=str(folder),
        compiled=str(compiled.resolve()) if compiled else None,
    )


def compiled_folder(settings: Settings) -> Path:
    """Where compiled programs are kept from one search to the next."""
    return Path(settings.results_dir) / ".cache" / "compiled"


def memory_bytes(settings: Settings) -> int:
    """Resident memory of one contained process."""
    return round(settings.budget.memory_gib * GIB)


def limits_of_training(limits: Limits, params: int, checkpoints: int) -> Limits:
    """These limits, raised where so many checkpoints of a model with `params` parameters need more."""
    one = _CHECKPOINT_BYTES * params
    return replace(limits, file_bytes=max(limits.file_bytes, one), disk_bytes=max(limits.disk_bytes, checkpoints * one))


def gate_arguments(
    settings: Settings, allowed_imports: Sequence[str], known: dict[str, str], reference_flops: float | None
) -> dict[str, Any]:
    """Arguments of the gate's settings: the shapes of training, the caps of the budget, what was tried before."""
    cap = settings.budget.flops_per_token
    return {
        "width": settings.model.width,
        "heads": settings.model.heads,
        "train_time": settings.train.time,
        "train_batch": settings.train.microbatch,
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
    outcome: dict[str, Any] = {}
    for message in _train(spec, box):
        if "rung" in message:
            measured = message["rung"]
            yield {**message, "cost": asdict(_trained(cost, training, started))}
        else:
            outcome = message.get("outcome", {})
    outcome = outcome or fitness_json(measured, spec.fitness)
    if measured and _contends(spec, outcome):
        outcome = rescored(spec, outcome, measured["step"], box)
    yield {"outcome": outcome, "cost": asdict(_trained(cost, training, started))}


def _train(spec: TrialSpec, box: Box) -> Iterator[Message]:
    """{"rung": {...}, "decided": bool} at each rung, and last, if it did not train to the end, {"outcome": {...}}."""
    arguments = {
        **{name: getattr(spec, name) for name in ("source", "model", "train", "validation_windows", "rungs", "floor")},
        **{name: getattr(spec, name) for name in ("dtype", "device_bytes", "devices")},
        "checkpoints": str(_checkpoints(spec)),
        "accelerator": spec.accelerator,
        "keeps_compiled": spec.compiled is not None,
    }
    limits = limits_of_training(
        Limits(spec.train["timeout_seconds"], spec.memory_bytes, accelerator=spec.accelerator),
        ModelSettings(**spec.model).params(spec.vocabulary),
        checkpoints=_CHECKPOINTS,
    )
    files = {name: Path(spec.corpus[name]) for name in ("train", "validation", "token_bytes")}
    left = list(spec.rungs)
    kept = compiled.folder_of(Path(spec.compiled), spec.source) if spec.compiled else None
    if kept:
        compiled.fetch(kept, _train_folder(spec))
    for message in box.run("nas.train:boxed", arguments, _train_folder(spec), limits, files):
        if "rung" in message:
            measured = reports.read(reports.Measured, message["rung"])
            if measured is None or measured.step not in left:
                yield {"outcome": _crashed("killed", "its process sent a measurement that is not one")}
                return
            left = left[left.index(measured.step) + 1 :]
            yield {"rung": measured.model_dump(), "decided": message.get("decided") is True}
        elif "crashed" in message:
            yield {"outcome": _crashed(**message["crashed"])}
        elif message.get("result") != {"trained": True}:
            result = message.get("result")
            ended = reports.read(reports.Ended, result.get("crashed") if isinstance(result, dict) else None)
            ended = ended or reports.Ended(cause="diverged", reason="its process sent a result that is not one")
            yield {"outcome": _crashed(ended.cause, ended.reason)}
        elif kept:
            compiled.keep(_train_folder(spec), kept)


def _contends(spec: TrialSpec, outcome: dict[str, Any]) -> bool:
    return (
        outcome["kind"] == "fitness"
        and spec.contends_below is not None
        and outcome["step"] == spec.rungs[-1]
        and bool(outcome["bits_per_byte"] < spec.contends_below)
    )


def rescored(spec: TrialSpec, outcome: dict[str, Any], step: int, box: Box) -> dict[str, Any]:
    """The fitness that processes which train nothing find in a checkpoint (see `nas.rescore`), as JSON values.

    `Held` where that is something else than `outcome`, the fitness that training told of, or where the certificate no
    longer holds.
    """
    fitness = Fitness(**{name: value for name, value in outcome.items() if name != "kind"})
    shapes = {"model": spec.model, "batch": TrainSettings(**spec.train).microbatch, "time": spec.train["time"]}
    shapes |= {"accelerator": spec.accelerator, "vocabulary": spec.vocabulary, "dtype": spec.dtype}
    seconds = max(_RESCORE_SECONDS, spec.train["timeout_seconds"])
    limits = Limits(seconds, spec.memory_bytes, accelerator=spec.accelerator)
    tracing = {**shapes, "source": spec.source, "seed": spec.train["seed"]}
    traced = _last(box.run("nas.rescore:export_boxed", tracing, Path(spec.folder) / "rescore", limits))
    exported = reports.read(reports.Exported, traced.get("result"))
    if exported is None:
        return _not_rescored(traced, fitness)
    scoring = {
        **shapes,
        **exported.model_dump(),
        "checkpoint": str(_checkpoints(spec) / f"{step:08d}"),
        "validation_windows": spec.validation_windows,
    }
    files = {name: Path(spec.corpus[name]) for name in ("validation", "reserve", "token_bytes")}
    scored = _last(box.run("nas.rescore:score_boxed", scoring, _train_folder(spec), limits, files))
    found = reports.read(reports.Scored, scored.get("result"))
    if found is None:
        return _not_rescored(scored, fitness)
    if found.fault:
        return outcome_to_json(Held("certificate", found.fault, fitness))
    if abs(found.bits_per_byte - fitness.bits_per_byte) > spec.tolerance:
        reason = (
            f"training said {fitness.bits_per_byte:.4f} bits per byte, its checkpoint has {found.bits_per_byte:.4f} "
            f"on the same windows (at most {spec.tolerance:g} apart)"
        )
        return outcome_to_json(Held("rescore", reason, fitness))
    clean = fitness_of({**outcome, "bits_per_byte": found.bits_per_byte}, spec.fitness)
    if isinstance(clean, Fitness):
        held_out = {name: getattr(found, name) for name in ("held_out_bits_per_byte", "held_out_stderr")}
        clean = replace(clean, **held_out)
    return outcome_to_json(clean)


def _last(messages: Iterator[Message]) -> Message:
    """The last of them; no other is kept."""
    return deque(messages, maxlen=1)[0]


def _not_rescored(ended: Message, fitness: Fitness) -> dict[str, Any]:
    """A candidate that can be trained can be rescored: what fails here is for a person, unless the machine failed."""
    crash = ended.get("crashed") or {"cause": "killed", "reason": "what its process sent is no result"}
    if crash["cause"] == "infrastructure":
        return _crashed(**crash)
    lines = [line for line in crash["reason"].splitlines() if line.strip("- ") and not line.startswith(_JAX_EXCUSE)]
    reason = lines[-1] if lines else ""
    return outcome_to_json(Held("rescore", f"it could not be rescored: {reason[:_MOST_LETTERS]}", fitness))


def _train_folder(spec: TrialSpec) -> Path:
    return Path(spec.folder) / "train"


def _checkpoints(spec: TrialSpec) -> Path:
    return _train_folder(spec) / "checkpoints"


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
            begun += [message["started"]] if message["started"] in CHECKS else []
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
    """What the gate's process sent, if that is a verdict."""
    sent = result if isinstance(result, dict) else {}
    if rejected := reports.read(reports.Refused, sent.get("rejected")):
        return {"outcome": outcome_to_json(Rejected(rejected.check, rejected.reason))}
    if certified := reports.read(reports.Certified, sent.get("certificate")):
        return {"certificate": asdict(Certificate(**certified.model_dump()))}
    return {"outcome": _crashed("killed", "the gate's process sent a verdict that is not one")}


def fitness_json(measured: dict[str, Any] | None, fitness: str) -> dict[str, Any]:
    """The outcome of a trial that trained to its last rung, or was stopped at one, as JSON values."""
    if measured is None:
        return _crashed("killed", "its process ended without a measurement")
    outcome = fitness_of(measured, fitness)
    return outcome_to_json(outcome)


def _crashed(cause: str, reason: str) -> dict[str, Any]:
    return {"kind": "crashed", "cause": cause, "reason": reason[-_MOST_LETTERS:]}


def _trained(cost: Cost, training: float, started: float) -> Cost:
    return _total(replace(cost, train_seconds=time.monotonic() - training), started)


def _total(cost: Cost, started: float) -> Cost:
    return replace(cost, total_seconds=time.monotonic() - started)
