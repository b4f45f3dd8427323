"""`nas export SEARCH TRIAL DIR`: a trained trial as a small package that runs without this engine.

No line of the candidate runs in this process: its source is edited as text. In the box the weights are read out of the
checkpoint, and the package is held against the engine before anything is in DIR.
"""

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas import reports
from nas.commands.card import card
from nas.commands.containment import contained
from nas.commands.folder import folder_of
from nas.commands.stored import fetch_checkpoint
from nas.commands.trial_record import TrialRecord, record_of
from nas.errors import UserError
from nas.sandbox import Box, Limits, Message, temporary_folder
from nas.settings import Settings
from nas.space import load_space
from nas.standalone.sources import PACKAGE, imported, package_of
from nas.tasks.prepared import TOKEN_BYTES, TOKENIZER, kept_tokenizer
from nas.terminal import make_console, printable
from nas.trial import PRELOAD, memory_bytes

_USAGE = "usage: nas export SEARCH TRIAL DIR [overrides]"
_SECONDS = 600.0  # for each of the two processes
_MOST_APART = 1e-4  # of logits: far above what the same arithmetic may be rounded by
_EXAMPLE = Path(__file__).parent.parent / "standalone" / "example.py"


def arguments(words: Sequence[str]) -> tuple[str, str, Path, list[str]]:
    """(search, trial, folder to make, overrides) of a command line.

    Raises:
      UserError: with the usage.
    """
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    named = [word for word in words if word not in overrides]
    if len(named) != 3 or any(word.startswith("-") for word in named):
        raise UserError(_USAGE)
    return named[0], named[1], Path(named[2]), overrides


def export(search: str, trial: str, target: Path, asked: Settings) -> int:
    """Makes the package in `target`. Returns 0.

    Args:
      asked: where searches lie, and what contains candidates.

    Raises:
      UserError: with one sentence.
    """
    _require_empty(target)
    record = record_of(folder_of(search, Path(asked.results_dir)), trial)
    space = load_space(record.settings.search_space.module)
    checkpoint, corpus, console = _checkpoint(record), _corpus_folder(record), make_console()
    tokens = kept_tokenizer({**record.corpus, "folder": str(corpus)})
    sources = package_of(
        record.trial.candidate.source,
        record.settings.search_space.module.rpartition(".")[0],
        trained_tokens=tokens.library is not None,
    )
    tier = contained(asked, console)
    with temporary_folder("nas-export-") as scratch:
        package = scratch / "package"
        box = Box(
            (*PRELOAD, "nas.standalone.checking", *sorted(space.allowed_imports)), tier=tier, root=scratch / "box"
        )
        try:
            console.print(f"reading the weights of {record.trial.id} at step {record.fitness.step}")
            dtypes = _unpack(record, checkpoint, package / "weights.npz", box, scratch / "box")
            _write(package, record, sources, dtypes, tokens.vocabulary)
            if tokens.library is not None:
                shutil.copyfile(corpus / TOKENIZER, package / TOKENIZER)
            console.print("holding the package against the engine, in the box")
            seen = _checked(record, package, corpus, box, scratch / "box")
        finally:
            box.close()
        requirements = _requirements([*sources.values(), _EXAMPLE.read_text(encoding="utf-8")])
        (package / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        (package / "README.md").write_text(card(record, space, seen, requirements), encoding="utf-8")
        _place(package, target)
    console.print(_told(record, target, seen), markup=False, soft_wrap=True)
    return 0


def _require_empty(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there and not an empty folder: nothing is overwritten, so name another")


def _checkpoint(record: TrialRecord) -> Path:
    """Raises UserError if it is not there."""
    step = record.fitness.step
    fetch_checkpoint(record.settings.store, record.folder, record.trial.id)
    path = record.folder.trial(record.trial.id) / "train" / "checkpoints" / f"{step:08d}"
    if path.is_symlink() or not path.is_dir():
        raise UserError(
            f"{record.trial.id} has no checkpoint of step {step} in {path.parent}: nas reproduce trains it again"
        )
    return path


def _corpus_folder(record: TrialRecord) -> Path:
    """Where the search's prepared corpus is, if it is anywhere: results may have been moved."""
    recorded = Path(str(record.corpus.get("folder", "")))
    moved = record.folder.path.resolve().parent / ".cache" / recorded.name
    return moved if moved.is_dir() and not recorded.is_dir() else recorded


def _unpack(record: TrialRecord, checkpoint: Path, weights: Path, box: Box, scratch: Path) -> Mapping[str, str]:
    """Writes the weights; returns their types.

    Raises:
      UserError: if the checkpoint can't be read.
    """
    where = scratch / "unpack"
    damaged = f"the checkpoint {checkpoint} of {record.trial.id} can't be read"
    try:
        where.mkdir(parents=True)
        shutil.copytree(checkpoint, where / "checkpoint", symlinks=True)  # whatever links were left in it lead nowhere
    except OSError as error:
        raise UserError(f"{damaged}: {printable(str(error))}") from error
    asked = {"checkpoint": str(where / "checkpoint"), "weights": str(where / weights.name)}
    *_, last = box.run("nas.standalone.checking:unpack_boxed", asked, where, _limits(record))
    found = reports.read(reports.Unpacked, last.get("result"))
    written = where / weights.name
    if found is None or written.is_symlink() or not written.is_file():
        raise UserError(f"{damaged}: {_reason(last)}")
    weights.parent.mkdir(parents=True)
    shutil.copyfile(written, weights)
    return found.dtypes


def _write(
    package: Path, record: TrialRecord, sources: Mapping[str, str], dtypes: Mapping[str, str], vocabulary: int
) -> None:
    """The modules, their configuration, and the example."""
    for name, text in sources.items():
        file = package / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    shutil.copyfile(_EXAMPLE, package / "generate.py")
    config = {
        "model": asdict(record.settings.model),
        "vocabulary": vocabulary,
        "tokenizer": record.corpus.get("tokenizer", "bytes"),
        "time": record.settings.train.time,
        "seed": record.trial.budget.seed,
        "search": record.folder.name,
        "trial": record.trial.id,
        "candidate": record.trial.candidate.id,
        "step": record.fitness.step,
        "dtypes": dict(dtypes),
    }
    (package / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _checked(record: TrialRecord, package: Path, corpus: Path, box: Box, scratch: Path) -> reports.Packed:
    """What the package computes, beside the engine; in a copy, since the candidate's code runs there.

    Raises:
      UserError: if it can't be run, or computes something else.
    """
    where, trial = scratch / "check", record.trial.id
    where.mkdir(parents=True)
    shutil.copytree(package, where / "package")
    settings = record.settings
    asked = {
        "folder": str(where / "package"),
        "source": record.trial.candidate.source,
        "vocabulary": json.loads((package / "config.json").read_text())["vocabulary"],
        "batch": settings.train.microbatch,
        "time": settings.train.time,
        "validation_windows": settings.task.validation_windows,
        "dtype": record.corpus.get("dtype", "uint8"),
    }
    files = _validation(record, corpus)
    *_, last = box.run("nas.standalone.checking:check_boxed", asked, where, _limits(record), files)
    seen = reports.read(reports.Packed, last.get("result"))
    if seen is None:
        raise UserError(f"{trial} can't be packed, or its checkpoint is damaged: {_reason(last)}")
    if seen.logits > _MOST_APART:
        raise UserError(f"{trial} can't be packed: the package's logits are {seen.logits:.2g} from the engine's")
    recorded, most = record.fitness.bits_per_byte, settings.tripwire.rescore
    if seen.bits_per_byte is not None and abs(seen.bits_per_byte - recorded) > most:
        raise UserError(
            f"the checkpoint of {trial} has {seen.bits_per_byte:.4f} bits per byte where the journal says "
            f"{recorded:.4f}: one of them is damaged (nas reproduce tells which)"
        )
    return seen


def _validation(record: TrialRecord, corpus: Path) -> dict[str, Path]:
    """The files to measure on, if they are still what the search measured on."""
    files = {name: corpus / f"{name}.bin" for name in ("validation", TOKEN_BYTES)}
    sha256 = record.corpus.get("files") or {}
    whole = all(
        file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256.get(name)
        for name, file in files.items()
    )
    return files if whole else {}


def _limits(record: TrialRecord) -> Limits:
    return Limits(_SECONDS, memory_bytes(record.settings))


def _reason(ended: Message) -> str:
    crash = ended.get("crashed") or {"reason": "what its process sent is no result"}
    lines = [line for line in str(crash["reason"]).splitlines() if line.strip("- ") and "JAX" not in line[:60]]
    return printable(lines[-1])[:300] if lines else "its process said nothing"


def _requirements(sources: Iterable[str]) -> list[str]:
    """A line for each library that these modules import, with the version that is here.

    Raises:
      UserError: if one is none that could be installed.
    """
    names = imported(sources) - {*sys.stdlib_module_names, PACKAGE}
    distributions = importlib.metadata.packages_distributions()
    found = set()
    for name in names:
        if name not in distributions:
            raise UserError(f"the package would import {name}, which belongs to no library that can be installed")
        found.add(distributions[name][0])
    return sorted(f"{library}=={importlib.metadata.version(library)}" for library in found)


def _place(package: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        _require_empty(target)
        shutil.copytree(package, target, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{target} can't be written: {printable(str(error))}") from error


def _told(record: TrialRecord, target: Path, seen: Any) -> str:
    lines = [f"{record.trial.id} of {record.folder.name} ({record.label}) is in {target}"]
    lines.append(f"  its logits are {'the engine' if not seen.logits else f'within {seen.logits:.1g} of the engine'}'s")
    if seen.bits_per_byte is not None:
        lines.append(f"  {seen.bits_per_byte:.4f} bits per byte; the journal says {record.fitness.bits_per_byte:.4f}")
    lines.append(f"  try it: cd {target} && python generate.py 'The ' --tokens 100")
    return "\n".join(lines)
