"""`nas probe`: architectures on the probe tasks, over several training seeds, as one table.

What an architecture can do at all (recall, copying, state tracking), and whether the harness gives back what was
published of the baselines. Probes gate and describe; they don't rank.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from nas.commands.train import find_source
from nas.errors import UserError
from nas.journal import Event
from nas.live import describe
from nas.probe_trial import make_probe_spec, run_probe
from nas.sandbox import Box
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.statistics import mean_interval
from nas.tasks.probe import Setup
from nas.tasks.probes import PROBES
from nas.terminal import make_console, printable
from nas.trial import gate_arguments, memory_bytes, run_gate
from nas.types import Candidate


@dataclass(frozen=True)
class Architecture:
    """What is probed. `gated`: an outside reference has no linear cost and skips the gate."""

    candidate: Candidate
    gated: bool

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True)
class Probing:
    """One architecture on one task, with all seeds and learning rates."""

    architecture: Architecture
    task: str

    @property
    def key(self) -> str:
        return f"{self.architecture.candidate.id}/{self.task}"


def probe(names: Sequence[str], settings: Settings, overrides: Sequence[str]) -> int:
    """Trains, shows and writes the table. Returns 0.

    Args:
      names: baselines and candidate files; all baselines and outside references if empty.

    Raises:
      UserError: with one sentence, if a name is wrong or no probe is chosen.
    """
    space = load_space(settings.search_space.module)
    tasks = chosen_tasks(settings)
    architectures = _architectures(names, settings, space)
    probings = [Probing(architecture, task) for task in tasks for architecture in architectures]
    console, began = make_console(), time.monotonic()
    # Not the tasks: with others beside, it goes on with what there is of these.
    # Not the tasks: with others beside, it goes on with what there is of these.
    values = [asdict(replace(settings.probe, tasks=())), asdict(settings.budget), settings.train.seed]
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        found = measure(
            kept_in(settings, "probes", values),
            [(probing.key, probing) for probing in probings],
            len(probings),
            _work(settings, space),
            boxes,
            console,
        )
        minutes = (time.monotonic() - began) / 60
        opening = origin("nas probe", [*names, *overrides], boxes, minutes)
    report = {**opening, **summary(settings, architectures, tasks, found)}
    path = write_report(settings, "tasks", report, markdown(report))
    console.print("\n".join([*_table(report), f"written to {path}"]), markup=False, soft_wrap=True)
    return 0


def chosen_tasks(settings: Settings) -> list[str]:
    """Names of the tasks that the settings ask for.

    Raises:
      UserError: if there is none, or none of such a name.
    """
    if settings.probe.size == "none":
        raise UserError("probe=none leaves nothing to train on: say probe=tiny or probe=published")
    if unknown := [name for name in settings.probe.tasks if name not in PROBES]:
        raise UserError(f"probe.tasks: no {', '.join(unknown)}; there are {', '.join(PROBES)}")
    return [name for name in PROBES if name in settings.probe.tasks or not settings.probe.tasks]


def _architectures(names: Sequence[str], settings: Settings, space: SearchSpace) -> list[Architecture]:
    """Those that are named, each once; all baselines and outside references if none is."""
    if not names:
        outside = {candidate.id for candidate in space.outside_references().values()}
        return [Architecture(found, found.id not in outside) for found in chosen_baselines(settings, space)]
    found: dict[str, Architecture] = {}
    for name in names:
        source, gated = find_source(name, space)
        architecture = Architecture(Candidate(source, "named", name=Path(name).stem), gated)
        found.setdefault(architecture.candidate.id, architecture)
    return list(found.values())


def _work(settings: Settings, space: SearchSpace) -> Callable[[Probing, Box, Path], Event]:
    """(probing, box, scratch folder) -> {"runs", "seconds"}, or {"outcome"} of a gate that did not pass it."""

    def work(probing: Probing, box: Box, scratch: Path) -> Event:
        started, source = time.monotonic(), probing.architecture.candidate.source
        if probing.architecture.gated:
            shaped = at_shape(settings, PROBES[probing.task].at(settings.probe.size))
            gate = gate_arguments(shaped, sorted(space.allowed_imports), known={}, reference_flops=None)
            limits = settings.budget.gate_seconds, memory_bytes(settings)
            verdict = run_gate(source, gate, box, scratch / "gate", *limits)
            if "certificate" not in verdict:
                return {"outcome": verdict["outcome"]}
        runs = run_probe(make_probe_spec(source, probing.task, settings, scratch / "probe"), box)
        return {"runs": runs, "seconds": time.monotonic() - started}

    return work


def at_shape(settings: Settings, setup: Setup) -> Settings:
    """The settings with the model and the shapes of a probe's training."""
    model = replace(
        settings.model,
        width=setup.width,
        heads=setup.heads,
        layers=setup.layers,
        layer_params=setup.layer_params,
    )
    return replace(settings, model=model, train=replace(settings.train, time=setup.probe.time, batch=setup.batch))


# What was found


def summary(
    settings: Settings, architectures: Sequence[Architecture], tasks: Sequence[str], found: Mapping[str, Event]
) -> dict[str, Any]:
    """The report as JSON values: for each task its size, and what each architecture reached.

    Args:
      found: key of a probing -> its runs and seconds, or its outcome.
    """
    keys = [Probing(architecture, task).key for architecture in architectures for task in tasks]
    return {
        "probe": asdict(settings.probe),
        "seeds": list(range(settings.train.seed, settings.train.seed + settings.probe.seeds)),
        "architectures": [{"name": a.name, "id": a.candidate.id, "outside": not a.gated} for a in architectures],
        "tasks": {task: _described(settings, PROBES[task].at(settings.probe.size)) for task in tasks},
        "core_minutes": sum(found[key].get("seconds", 0.0) for key in keys) / 60,
        "results": {task: {a.name: best_of(found[Probing(a, task).key]) for a in architectures} for task in tasks},
    }


def _described(settings: Settings, setup: Setup) -> dict[str, Any]:
    """A task's size and training as JSON values."""
    asked = settings.probe
    return {
        **asdict(setup),
        "steps": asked.steps or setup.steps,
        "learning_rates": asked.learning_rates or setup.learning_rates,
        "chance": setup.probe.chance,
        "scored_times": setup.probe.scored_times,
    }


def best_of(event: Event) -> dict[str, Any]:
    """What an architecture reached on a task, at the learning rate of the grid that is best over all its seeds.

    Best is the mean accuracy over seeds and scored lengths. A learning rate at which one seed crashed has none: a mean
    over the others would flatter it.

    Returns:
      {"failure"}: words, if no learning rate has one; "learning_rate", "accuracy" (tokens -> {"mean", "low", "high",
      "by_seed"}, with a 95% interval within [0, 1] where there are seeds for one), "steps", and "runs", all of them.
    """
    if "runs" not in event:
        return {"failure": describe({"outcome": event["outcome"]}), "runs": []}
    by_rate: dict[float, list[Mapping[str, Any]]] = {}
    for run in event["runs"]:
        by_rate.setdefault(run["learning_rate"], []).append(run)
    whole = {rate: runs for rate, runs in by_rate.items() if not any("crashed" in run for run in runs)}
    if not whole:
        crash = next(run["crashed"] for run in event["runs"] if "crashed" in run)
        return {"failure": describe({"outcome": {"kind": "crashed", **crash}}), "runs": event["runs"]}
    rate, runs = max(whole.items(), key=lambda item: sum(sum(run["accuracy"].values()) for run in item[1]))
    return {
        "failure": None,
        "learning_rate": rate,
        "accuracy": {time: _over_seeds([run["accuracy"][time] for run in runs]) for time in runs[0]["accuracy"]},
        "steps": [run["steps"] for run in runs],
        "runs": event["runs"],
    }


def _over_seeds(accuracies: Sequence[float]) -> dict[str, Any]:
    interval = mean_interval(accuracies)
    bounded = interval.count > 1
    return {
        "mean": interval.mean,
        "low": max(0.0, interval.low) if bounded else None,
        "high": min(1.0, interval.high) if bounded else None,
        "by_seed": list(accuracies),
    }


# For people


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        "# Probe tasks",
        "",
        *origin_lines(report),
        f"Size: {report['probe']['size']}. Training seeds {', '.join(map(str, report['seeds']))}; "
        f"{report['core_minutes']:.1f} minutes of work in all, the gate's included.",
        "",
        "Share of right answers on held-out examples: mean over the seeds and its 95% interval (Student's t, cut at 0 "
        "and 1), at the learning rate that is best over all seeds and lengths. Every architecture has the same grid of "
        "learning rates, the same batches and the same held-out examples. The best rate is chosen by the numbers that "
        "are shown, so they are a little too good, for all alike. A run ends early where "
        "99% of other held-out answers are right at every length. *: an outside reference, whose cost is not linear; "
        "it skips the gate.",
        "",
        *_table(report),
        "## Single seeds",
        "",
        *_seeds_table(report),
        "## Sizes",
        "",
        *_sizes_table(report),
    ]
    return "\n".join(lines)


def _table(report: dict[str, Any]) -> list[str]:
    """A table for each task, so that lines stay short: architectures by what they can do at each length."""
    lines: list[str] = []
    for task, size in report["tasks"].items():
        times = [str(time) for time in size["scored_times"]]
        headers = ["", *(f"{task}, {time} tokens" for time in times), "learning rate", "steps"]
        chance = ["chance", *(f"{size['chance']:.3f}" for _ in times), "", ""]
        rows = [_cells(architecture, report["results"][task], times) for architecture in report["architectures"]]
        lines += markdown_table(headers, [chance, *rows])
    return lines


def _cells(architecture: Mapping[str, Any], results: Mapping[str, Any], times: Sequence[str]) -> list[str]:
    name = printable(architecture["name"]) + ("*" if architecture["outside"] else "")
    result = results[architecture["name"]]
    if result["failure"]:
        return [name, result["failure"], *("" for _ in times)]
    cells = [_accuracy(result["accuracy"][time]) for time in times]
    steps = sum(result["steps"]) / len(result["steps"])
    return [name, *cells, f"{result['learning_rate']:g}", f"{steps:.0f}"]


def _accuracy(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _seeds_table(report: dict[str, Any]) -> list[str]:
    """Each seed at each scored length, and the mean over both at each learning rate of the grid."""
    headers = ["task", "architecture", "accuracy of each seed, by tokens", "mean at each learning rate"]
    rows = []
    for task, results in report["results"].items():
        for name, result in results.items():
            if result["runs"]:
                rows.append([task, printable(name), _by_seed(result), _by_rate(result["runs"])])
    return markdown_table(headers, rows)


def _by_seed(result: Mapping[str, Any]) -> str:
    if result["failure"]:
        return ""
    seeds = {time: found["by_seed"] for time, found in result["accuracy"].items()}
    return "; ".join(f"{time}: {', '.join(f'{value:.3f}' for value in values)}" for time, values in seeds.items())


def _by_rate(runs: Sequence[Mapping[str, Any]]) -> str:
    by_rate: dict[float, list[float | None]] = {}
    for run in runs:
        accuracy = run.get("accuracy")
        by_rate.setdefault(run["learning_rate"], []).append(accuracy and sum(accuracy.values()) / len(accuracy))
    return "; ".join(f"{rate:g}: {_mean_or_crash(values)}" for rate, values in by_rate.items())


def _mean_or_crash(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return f"{len(values) - len(numbers)} of {len(values)} crashed"
    return f"{sum(numbers) / len(numbers):.3f}"


def _sizes_table(report: dict[str, Any]) -> list[str]:
    headers = ["task", "size", "width", "heads", "layers", "steps at most", "batch", "learning rates"]
    rows = [
        [
            task,
            ", ".join(f"{name} {value}" for name, value in size["probe"].items() if name != "longer"),
            *(size[name] for name in ("width", "heads", "layers", "steps", "batch")),
            ", ".join(f"{rate:g}" for rate in size["learning_rates"]),
        ]
        for task, size in report["tasks"].items()
    ]
    return markdown_table(headers, rows)
