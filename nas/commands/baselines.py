"""`nas baselines`: every baseline on the harness of a search, over several training seeds, as one table.

What a candidate has to beat, and whether the harness puts the published architectures into the published order.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.commands.containment import contained
from nas.commands.measuring import (
    at_a_time,
    chosen_baselines,
    kept_in,
    markdown_table,
    measure,
    origin,
    origin_lines,
    warm_boxes,
    write_report,
)
from nas.journal import Event
from nas.live import describe
from nas.sandbox import Box
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.statistics import mean_interval, standard_deviation
from nas.tasks.corpus import Corpus, prepare
from nas.terminal import make_console, printable
from nas.trial import compiled_folder, gate_arguments, make_spec, run_trial
from nas.types import Candidate


@dataclass(frozen=True)
class Training:
    """One architecture at one training seed.

    Attributes:
      gated: whether the gate comes first. One certificate an architecture is enough; an outside reference has none.
    """

    candidate: Candidate
    seed: int
    gated: bool

    @property
    def key(self) -> str:
        return f"{self.candidate.id}/{self.seed}"


def baselines(settings: Settings, overrides: Sequence[str]) -> int:
    """Trains, shows and writes the table. Returns 0.

    Raises:
      UserError: with one sentence, if the corpus or a name is wrong.
    """
    space = load_space(settings.search_space.module)
    trainings = _trainings(settings, space)
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    console, began = make_console(), time.monotonic()
    parts = ("model", "train", "task", "fitness", "scheduler", "budget")
    values = {part: asdict(getattr(settings, part)) for part in parts}
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        found = measure(
            kept_in(settings, "baselines", [values, corpus.sha256]),
            ((training.key, training) for training in trainings),
            len(trainings),
            _trial(settings, space, corpus),
            boxes,
            console,
        )
        minutes = (time.monotonic() - began) / 60
        report = {**origin("nas baselines", overrides, boxes, minutes), **summary(settings, space, trainings, found)}
    report["corpus"] = {"name": corpus.name, "sha256": corpus.sha256, "unit": corpus.unit}
    path = write_report(settings, "baselines", report, markdown(report))
    console.print("\n".join([*_table(report), f"written to {path}"]), markup=False, soft_wrap=True)
    return 0


def _trainings(settings: Settings, space: SearchSpace) -> list[Training]:
    """Each architecture with each seed, seed by seed: after an interrupt all have equally many."""
    chosen = chosen_baselines(settings, space)
    ungated = {candidate.id for candidate in space.outside_references().values()}
    return [
        Training(candidate, settings.train.seed + number, gated=number == 0 and candidate.id not in ungated)
        for number in range(settings.baselines.seeds)
        for candidate in chosen
    ]


def _trial(settings: Settings, space: SearchSpace, corpus: Corpus) -> Callable[[Training, Box, Path], Event]:
    """(training, box, scratch folder) -> {"certificate", "rungs", "outcome", "cost"}."""
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    steps = settings.train.steps
    rungs = sorted({*rung_steps(settings), _half(steps)})  # a search's, for the learning rate to be chosen at its first

    def trial(training: Training, box: Box, scratch: Path) -> Event:
        spec = make_spec(
            training.candidate.source,
            settings,
            corpus,
            gate=gate if training.gated else None,
            rungs=rungs,
            floored=False,
            contends_below=None,
            seed=training.seed,
            folder=scratch,
            compiled=compiled_folder(settings),
        )
        found: Event = {"certificate": None, "rungs": []}
        for message in run_trial(spec, box):
            found["rungs"] += [message["rung"]] if "rung" in message else []
            found.update({name: message[name] for name in ("certificate", "outcome", "cost") if name in message})
        return found

    return trial


# What was found


def summary(
    settings: Settings, space: SearchSpace, trainings: Sequence[Training], found: Mapping[str, Event]
) -> dict[str, Any]:
    """One row for each architecture as JSON values: the trained ones by their mean, then those that failed.

    Args:
      found: key of a training -> its certificate, rungs, outcome and cost.
    """
    by_name: dict[str, list[Training]] = {}
    for training in trainings:
        by_name.setdefault(training.candidate.name, []).append(training)
    rows = [_row(settings, space, runs, found) for runs in by_name.values()]
    reference = next((row for row in rows if row["name"] == space.reference), None)
    for row in rows:
        row["difference"] = _difference(row, reference)
    rows.sort(key=lambda row: (row["bits_per_byte"] is None, row["bits_per_byte"] or 0.0, row["name"]))
    seconds = sum(found[training.key].get("cost", {}).get("total_seconds", 0.0) for training in trainings)
    return {
        "reference": space.reference,
        "seeds": sorted({training.seed for training in trainings}),
        "train": asdict(settings.train),
        "grid": [multiple * settings.train.learning_rate for multiple in settings.train.grid],
        "first_rung": rung_steps(settings)[0],
        "model": asdict(settings.model),
        "core_minutes": seconds / 60,
        "half_run_rank_correlation": _rank_correlation(rows),
        "rows": rows,
    }


def _row(
    settings: Settings, space: SearchSpace, runs: Sequence[Training], found: Mapping[str, Event]
) -> dict[str, Any]:
    """What the runs of one architecture have in common. A failed seed fails the row: a mean of the rest flatters it."""
    events = {run.seed: found[run.key] for run in runs}
    outcomes = [event["outcome"] for event in events.values()]
    certificate = next((event["certificate"] for event in events.values() if event.get("certificate")), None)
    row: dict[str, Any] = {
        "name": runs[0].candidate.name,
        "id": runs[0].candidate.id,
        "outside": runs[0].candidate.name in space.outside_references(),
        "failure": next((describe({"outcome": failed}) for failed in outcomes if failed["kind"] != "fitness"), None),
        "mixer_params": certificate and certificate["params"] / settings.model.width**2,
        "mixer_flops_per_token": certificate and certificate["flops_per_token"],
        "state_bytes": certificate and certificate["state_bytes"],
        **dict.fromkeys(("bits_per_byte", "stderr", "range", "half_run", "params", "flops_per_token")),
        **dict.fromkeys(("tokens_per_second", "learning_rates")),
        "by_seed": {},
    }
    if row["failure"]:
        return row
    scores = [outcome["bits_per_byte"] for outcome in outcomes]
    return {
        **row,
        "by_seed": dict(zip(events, scores, strict=True)),
        "bits_per_byte": _mean(scores),
        "stderr": standard_deviation(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        "range": max(scores) - min(scores),
        "half_run": _mean([_at(event["rungs"], _half(settings.train.steps)) for event in events.values()]),
        "params": outcomes[0]["params"],
        "flops_per_token": outcomes[0]["flops_per_token"],
        "tokens_per_second": _mean([outcome["tokens_per_second"] for outcome in outcomes]),
        "learning_rates": sorted({outcome["learning_rate"] for outcome in outcomes}),
    }


def _difference(row: Mapping[str, Any], reference: Mapping[str, Any] | None) -> dict[str, float | None] | None:
    """Bits per byte above the reference's, paired by seed, with a 95% interval where there are seeds for one."""
    if reference is None or row is reference or row["failure"] or reference["failure"]:
        return None
    interval = mean_interval([row["by_seed"][seed] - reference["by_seed"][seed] for seed in row["by_seed"]])
    bounded = interval.count > 1
    return {
        "mean": interval.mean,
        "low": interval.low if bounded else None,
        "high": interval.high if bounded else None,
    }


def _rank_correlation(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Spearman's, between the order at half the steps and at the end; None for fewer than three architectures."""
    trained = [row for row in rows if row["bits_per_byte"] is not None]
    if len(trained) < 3:
        return None
    from scipy.stats import spearmanr  # half a second to import

    return float(spearmanr([row["half_run"] for row in trained], [row["bits_per_byte"] for row in trained]).statistic)


def _half(steps: int) -> int:
    return max(1, steps // 2)


def _at(rungs: Sequence[Mapping[str, Any]], step: int) -> float:
    return float(next(rung["bits_per_byte"] for rung in rungs if rung["step"] == step))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# For people


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    train, model, corpus = report["train"], report["model"], report["corpus"]
    correlation = report["half_run_rank_correlation"]
    lines = [
        "# Baselines",
        "",
        *origin_lines(report),
        f"{model['layers']} layers of width {model['width']}, {model['heads']} heads; {train['steps']} steps of "
        f"{train['batch']} x {train['time']} {corpus.get('unit', 'bytes')} of {corpus['name']} "
        f"(sha256 {corpus['sha256'][:16]}); "
        f"training seeds {', '.join(map(str, report['seeds']))}; {report['core_minutes']:.1f} minutes of trials in "
        "all. No trial is stopped early. Each architecture is trained up to "
        f"step {report['first_rung']} with every peak learning rate of "
        f"{', '.join(f'{rate:g}' for rate in report['grid'])}, and goes on with the best.",
        "",
        *_table(report),
        "Bits per byte on the validation split: mean over the seeds, ± the standard error of that mean; range over the "
        f"seeds; mean after half of the steps. Difference: to {report['reference']}, paired by seed, with its 95% "
        "interval; less is better. Learning rate: the peaks that the grid chose, over the seeds. Mixer: parameters of "
        "one, in units of width². Model: parameters and forward FLOPs per token of the whole. State: bytes of one "
        "mixer's decoding state at batch 1. Tokens/s: of training, with as many trials at a time as said above. *: an "
        "outside reference, whose cost is not linear; it skips the gate.",
        "",
    ]
    if correlation is not None:
        lines += [f"The order after half of the steps and the final one: Spearman's correlation {correlation:.2f}.", ""]
    return "\n".join(lines)


def _table(report: dict[str, Any]) -> list[str]:
    headers = ["", "bits per byte", "range", "half run", f"difference to {report['reference']}"]
    headers += ["learning rate", "mixer", "model", "FLOPs/token", "state", "tokens/s"]
    return markdown_table(headers, [_cells(row, len(report["seeds"])) for row in report["rows"]])


def _cells(row: Mapping[str, Any], seeds: int) -> list[str]:
    name = printable(row["name"]) + ("*" if row["outside"] else "")
    mixer, state = _number(row["mixer_params"], ".2f"), _number(row["state_bytes"], ",")
    if row["failure"]:
        return [name, row["failure"], "", "", "", "", mixer, "", "", state, ""]
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
    return [
        name,
        f"{row['bits_per_byte']:.4f}{error} (n={seeds})",
        f"{row['range']:.4f}",
        f"{row['half_run']:.4f}",
        _interval(row["difference"]),
        ", ".join(f"{rate:g}" for rate in row["learning_rates"]),
        mixer,
        _number(row["params"], ","),
        _number(row["flops_per_token"], ",.0f"),
        state,
        _number(row["tokens_per_second"], ",.0f"),
    ]


def _interval(difference: Mapping[str, float | None] | None) -> str:
    if difference is None:
        return ""
    if difference["low"] is None:
        return f"{difference['mean']:+.4f}"
    return f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
