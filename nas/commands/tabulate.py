"""`nas tabulate`: every candidate of a small closed grammar trained for seconds, as one table that searches replay on.

A table makes a search a matter of milliseconds, so that hundreds of them tell what a meta-learner is worth (as in
NAS-Bench-201, Dong and Yang 2020, https://arxiv.org/abs/2001.00326). The grammar is closed: some parts for each slot,
all their combinations that go together. A candidate's source is made again from its parts (`SearchSpace.compose`).
"""

import csv
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas import compiled, reports
from nas.commands.containment import contained
from nas.commands.measuring import (
    at_a_time,
    kept_in,
    markdown_table,
    measure,
    origin,
    origin_lines,
    warm_boxes,
    write_report,
)
from nas.errors import UserError
from nas.journal import Event
from nas.noise import analysis_of_variance
from nas.sandbox import Box, Limits
from nas.settings import Settings
from nas.space import NotApplicable, SearchSpace, load_space
from nas.statistics import Interval, mean_interval, standard_deviation
from nas.tasks.corpus import Corpus, prepare
from nas.terminal import make_console
from nas.trial import GIB, compiled_folder, memory_bytes
from nas.types import Candidate

Genome = tuple[str, ...]
_BEST = 10


def tabulate(settings: Settings, overrides: Sequence[str]) -> int:
    """Trains what is not in the table yet, and writes results_dir/table.csv with table.md and .json beside it.

    Returns 0.

    Raises:
      UserError: with one sentence.
    """
    space = load_space(settings.search_space.module)
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    console, began = make_console(), time.monotonic()
    grammar = closed_grammar(space, settings.table.parts)
    candidates = grammar.candidates
    console.print(f"{len(candidates)} different candidates of {' x '.join(settings.table.parts)}", soft_wrap=True)
    values = {part: asdict(getattr(settings, part)) for part in ("model", "train", "task")}
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        found = measure(
            kept_in(settings, "table", [values, corpus.sha256, settings.table.seeds]),
            [(candidate.id, candidate) for candidate in candidates.values()],
            len(candidates),
            lambda candidate, box, scratch: _trained(candidate, settings, corpus, box, scratch),
            boxes,
            console,
        )
        head = origin("nas tabulate", overrides, boxes, (time.monotonic() - began) / 60)
    whole = {genome: found[one.id]["runs"] for genome, one in candidates.items() if "runs" in found[one.id]}
    if not whole:
        raise UserError(f"no candidate could be trained: {next(iter(found.values()))['outcome']['reason']}")
    slots = list(settings.table.parts)
    rows = [_row(slots, genome, space.family(candidates[genome].source), runs) for genome, runs in whole.items()]
    report = {
        **head,
        "settings": values,
        "corpus": {"name": corpus.name, "sha256": corpus.sha256},
        "slots": slots,
        "seeds": settings.table.seeds,
        **_summary(rows, slots, settings.table.seeds),
        "aliases": [[*raw, ">", *genome] for raw, genome in grammar.aliases.items() if raw != genome],
        "failed": [[*genome, found[one.id]["outcome"]] for genome, one in candidates.items() if genome not in whole],
    }
    _write_table(Path(settings.results_dir) / "table.csv", rows)
    path = write_report(settings, "table", report, _markdown(report))
    console.print(f"written to {path} and {path.with_suffix('.csv')}", markup=False, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class ClosedGrammar:
    """A genome has the parts of some slots in their order, as `SearchSpace.describe` finds them in a source.

    Attributes:
      candidates: genome -> candidate; of genomes with one program, the first.
      aliases: every combination of parts that goes together -> its genome: what no other part reads is dropped.
    """

    candidates: Mapping[Genome, Candidate]
    aliases: Mapping[Genome, Genome]


def closed_grammar(space: SearchSpace, parts: Mapping[str, Sequence[str]]) -> ClosedGrammar:
    """Every combination of these parts that goes together.

    Raises:
      UserError: if a slot or a part is not the space's, or nothing goes together.
    """
    if not parts:
        raise UserError("table.parts names no slot: table=small has a choice")
    composed: dict[Genome, Candidate] = {}
    aliases: dict[Genome, Genome] = {}
    refusal = "there are none"
    for chosen in itertools.product(*parts.values()):
        try:
            candidate = space.compose(dict(zip(parts, chosen, strict=True)))
        except NotApplicable as error:
            refusal = str(error)
            continue
        described = space.describe(candidate.source)
        aliases[chosen] = tuple(described[slot] for slot in parts)
        composed.setdefault(aliases[chosen], candidate)
    if not composed:
        raise UserError(f"none of the candidates of table.parts can be made: {refusal}")
    return ClosedGrammar(composed, aliases)


def _trained(candidate: Candidate, settings: Settings, corpus: Corpus, box: Box, scratch: Path) -> Event:
    """{"runs": [{"seed", "bits_per_byte", ...}]} or {"outcome": {"kind": "crashed", ...}}."""
    seeds = [settings.train.seed + number for number in range(settings.table.seeds)]
    accelerator = settings.execution.accelerated
    folder = scratch.resolve() / "train"
    arguments = {
        "source": candidate.source,
        "model": asdict(settings.model),
        "train": asdict(settings.train),
        "seeds": seeds,
        "scratch": str(folder),
        "accelerator": accelerator,
        "dtype": corpus.dtype,
        "device_bytes": round(settings.execution.device_gib * GIB),
        "validation_windows": settings.task.validation_windows,
    }
    limits = Limits(settings.train.timeout_seconds * len(seeds), memory_bytes(settings), accelerator=accelerator)
    files = {name: corpus.file(name) for name in ("train", "validation", "token_bytes")}
    kept = compiled.folder_of(compiled_folder(settings), candidate.source)
    compiled.fetch(kept, folder)
    runs: list[reports.Tabulated] = []
    last: dict[str, Any] = {}
    for message in box.run("nas.tabulated:boxed", arguments, folder, limits, files):
        last = message
        if run := reports.read(reports.Tabulated, message.get("run")):
            runs.append(run)
    crash = last.get("crashed") or (last.get("result") or {}).get("crashed")
    if crash or [run.seed for run in runs] != seeds:
        crash = crash or {"cause": "killed", "reason": "its process did not tell of every seed"}
        return {"outcome": {"kind": "crashed", "cause": crash["cause"], "reason": crash["reason"][-2000:]}}
    return {"runs": [run.model_dump() for run in runs]}


def _row(slots: Sequence[str], genome: Genome, family: str, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A line of the table."""
    scores = {f"bits_per_byte_{number}": round(run["bits_per_byte"], 5) for number, run in enumerate(runs)}
    seconds = round(sum(run["train_seconds"] for run in runs) / len(runs), 3)
    cost = {"params": runs[0]["params"], "flops_per_token": round(runs[0]["flops_per_token"])}
    return {**dict(zip(slots, genome, strict=True)), "family": family, **scores, **cost, "train_seconds": seconds}


def _summary(rows: Sequence[Mapping[str, Any]], slots: Sequence[str], seeds: int) -> dict[str, Any]:
    """How many there are, how far apart, how noisy; and what each part is worth on the average."""
    scores = [[row[f"bits_per_byte_{number}"] for number in range(seeds)] for row in rows]
    means = [sum(score) / seeds for score in scores]
    parts = [
        {"slot": slot, "part": part, "count": len(values), **_plain(mean_interval(values))}
        for slot in slots
        for part in dict.fromkeys(row[slot] for row in rows)
        for values in [[mean for mean, row in zip(means, rows, strict=True) if row[slot] == part]]
    ]
    named = [{**row, "mean": round(mean, 5)} for row, mean in zip(rows, means, strict=True)]
    return {
        "candidates": len(rows),
        **_noise(scores),
        "spread": standard_deviation(means),
        "best": sorted(named, key=_mean)[:_BEST],
        "worst": max(means),
        "parts": parts,
    }


def _noise(scores: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Standard deviations of one score over seeds, and of the difference of two candidates at the same seed."""
    found = analysis_of_variance({str(number): dict(enumerate(of_one)) for number, of_one in enumerate(scores)})
    one, difference = found if found else (None, None)
    return {
        "noise": one.deviation if one else None,
        "noise_of_difference": difference.deviation if difference else None,
    }


def _mean(row: Mapping[str, Any]) -> float:
    return float(row["mean"])


def _plain(interval: Interval) -> dict[str, float | None]:
    ends = {name: value if math.isfinite(value := getattr(interval, name)) else None for name in ("low", "high")}
    return {"mean": interval.mean, **ends}


def _markdown(report: Mapping[str, Any]) -> str:
    slots, train, model = report["slots"], report["settings"]["train"], report["settings"]["model"]
    best, parts, corpus = report["best"], report["parts"], report["corpus"]
    return "\n".join(
        [
            "# A table of small architectures",
            "",
            *origin_lines(dict(report)),
            f"{report['candidates']} candidates in `table.csv`: every combination of the parts below that goes "
            f"together, trained with {report['seeds']} seeds for {train['steps']} steps of {train['batch']} x "
            f"{train['time']} tokens of {corpus['name']} (sha256 {corpus['sha256'][:16]}), {model['layers']} layers of "
            f"width {model['width']}; {len(report['failed'])} could not be trained. Standard deviation of bits per "
            f"byte: over seeds {_known(report['noise'])}, of the difference of two candidates at one seed "
            f"{_known(report['noise_of_difference'])}, of the candidates' means {report['spread']:.4f}. A source is "
            "made again from its parts: `SPACE.compose({slot: part, ...}).source`.",
            "",
            "## The best, by the mean over seeds",
            "",
            *markdown_table(
                ["bits per byte", *slots],
                [[f"{row['mean']:.4f}", *(row[slot] for slot in slots)] for row in best],
            ),
            "## What each part is worth: the mean over the candidates that have it",
            "",
            *markdown_table(
                ["slot", "part", "candidates", "bits per byte"],
                [[part["slot"], part["part"], part["count"], _interval(part)] for part in parts],
            ),
        ]
    )


def _known(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.4f}"


def _interval(part: Mapping[str, Any]) -> str:
    return f"{part['mean']:.4f}" + (f" [{part['low']:.4f}, {part['high']:.4f}]" if part["low"] is not None else "")


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
