"""One piece of a verification, measured: trained in one contained process, scored in another that runs none of it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas import compiled, reports
from nas.journal import Event
from nas.sandbox import Box, Limits, Message
from nas.settings import Settings
from nas.trial import GIB, compiled_folder, limits_of_training, memory_bytes
from nas.verify import Piece

_SCORE_SECONDS = 600.0
_MOST_LETTERS = 2000


def measure_piece(piece: Piece, settings: Settings, box: Box, scratch: Path) -> Event:
    """{"runs": name -> {"bits": [...]} or {"failure": sentence}, "params", "flops_per_token", "tokens_per_second"}.

    Or {"outcome": {"kind": "crashed", "cause", "reason"}}. The training process is handed the train split alone.

    Args:
      settings: limits, and whether there are accelerators.
    """
    accelerator = settings.execution.accelerated
    shapes = {
        "model": asdict(piece.model),
        "accelerator": accelerator,
        "batch": piece.train.microbatch,
        "time": piece.train.time,
        "vocabulary": piece.corpus.vocabulary,
        "dtype": piece.corpus.dtype,
        "device_bytes": round(settings.execution.device_gib * GIB),
    }
    share = piece.train.steps / settings.train.steps * (piece.model.width / settings.model.width) ** 2
    seconds = settings.train.timeout_seconds * len(piece.runs) * max(1.0, share)
    limits = limits_of_training(
        Limits(seconds, memory_bytes(settings), accelerator=accelerator),
        piece.model.params(piece.corpus.vocabulary),
        checkpoints=len(piece.runs) + 1,
    )
    folder = scratch / "train"
    checkpoints = folder.resolve() / "checkpoints"
    training = {
        **shapes,
        "source": piece.candidate.source,
        "train": asdict(piece.train),
        "runs": piece.runs,
        "checkpoints": str(checkpoints),
        "devices": settings.execution.devices,
    }
    files = {"train": piece.corpus.file("train"), "token_bytes": piece.corpus.token_bytes}
    kept = compiled.folder_of(compiled_folder(settings), piece.candidate.source)
    compiled.fetch(kept, folder)
    trained: dict[str, reports.Run] = {}
    for message in box.run("nas.repeated:boxed", training, folder, limits, files):
        run = reports.read(reports.Run, message.get("run"))
        if run:
            trained[run.name] = run
    if "crashed" in message:
        return _crashed(message)
    if trained.keys() != {run["name"] for run in piece.runs}:
        return {"outcome": _words("killed", "its process did not tell of every training")}
    compiled.keep(folder, kept)
    found: dict[str, Any] = {name: {"failure": "the training loss was not finite"} for name in trained}
    whole = [name for name, run in trained.items() if not run.diverged]
    if whole:
        scored = _scored(piece, shapes, whole, box, scratch, limits)
        if "outcome" in scored:
            return scored
        found |= scored
    runs = list(trained.values())
    return {
        "runs": found,
        "params": runs[0].params,
        "flops_per_token": runs[0].flops_per_token,
        "tokens_per_second": sum(run.tokens_per_second for run in runs) / len(runs),
        "train_seconds": sum(run.train_seconds for run in runs),
    }


def _scored(
    piece: Piece, shapes: Mapping[str, Any], names: list[str], box: Box, scratch: Path, limits: Limits
) -> dict[str, Any]:
    """name -> {"bits"} or {"failure"}; or {"outcome": ...}. See `nas.rescore`."""
    seeds = {run["name"]: run["seed"] for run in piece.runs}
    programs: dict[str, str] = {}
    parameters: list[str] = []
    for name in names:
        tracing = {**shapes, "source": piece.candidate.source, "seed": seeds[name]}
        *_, traced = box.run("nas.rescore:export_boxed", tracing, scratch / "export", limits)
        exported = reports.read(reports.Exported, traced.get("result"))
        if exported is None:
            return _crashed(traced)
        parameters = exported.names
        programs[name if exported.drawn else ""] = exported.program
        if not exported.drawn:
            break
    scoring = {
        **shapes,
        "names": parameters,
        "programs": programs,
        "runs": names,
        "checkpoints": str(scratch.resolve() / "train" / "checkpoints"),
        "windows": piece.windows,
        "certify": piece.certify,
    }
    seconds = max(_SCORE_SECONDS, limits.seconds)
    scoring_limits = Limits(seconds, limits.memory_bytes, accelerator=limits.accelerator)
    files = {"text": piece.corpus.file(piece.split), "token_bytes": piece.corpus.token_bytes}
    *_, last = box.run("nas.rescore:score_many_boxed", scoring, scratch / "train", scoring_limits, files)
    result = reports.read(reports.RunScores, last.get("result"))
    if result is None or result.scores.keys() != set(names):
        return _crashed(last)
    return {
        name: {"failure": score.fault} if score.fault else {"bits": score.bits} for name, score in result.scores.items()
    }


def _crashed(message: Message) -> dict[str, Any]:
    crash = message.get("crashed") or {"cause": "killed", "reason": "what its process sent is no result"}
    return {"outcome": _words(crash["cause"], crash["reason"])}


def _words(cause: str, reason: str) -> dict[str, Any]:
    return {"kind": "crashed", "cause": cause, "reason": reason[-_MOST_LETTERS:]}
