"""`make bench`: what takes how long, measured in one run, as one table and `results/bench.json`.

    python -m nas.bench            about six minutes on two cores

Each row is a figure, its unit and the goal it is held against, where there is one.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from nas import journal as journals
from nas.commands.check import verdict_on
from nas.commands.measuring import chosen_baselines, warm_boxes
from nas.configuration import composed, settings_of
from nas.sandbox import Box, temporary_folder
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.tasks.corpus import prepare
from nas.terminal import make_console
from nas.trial import ANY, gate_arguments, make_spec, memory_bytes, run_gate, run_trial

OUTPUT = Path("results/bench.json")


@dataclass(frozen=True)
class Figure:
    """One measured number. `goal` in words, empty if there is none."""

    name: str
    value: float
    unit: str
    goal: str = ""


def main() -> None:
    settings = settings_of(composed([]))
    space = load_space(settings.search_space.module)
    console = make_console()
    figures: list[Figure] = []
    for figure in measure(settings, space):
        console.print(f"{figure.name}: {figure.value:,.2f} {figure.unit}")
        figures.append(figure)
    table = Table(
        "what", "figure", "unit", "goal", title=f"{platform.processor() or platform.machine()}, {_cpus()} cores"
    )
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:,.2f}", figure.unit, figure.goal)
    console.print(table)
    OUTPUT.parent.mkdir(exist_ok=True)
    record = {"command": "make bench", "python": platform.python_version(), "cores": _cpus()}
    OUTPUT.write_text(json.dumps({**record, "figures": [asdict(figure) for figure in figures]}, indent=2) + "\n")
    console.print(f"written to {OUTPUT}")


def measure(settings: Settings, space: SearchSpace) -> Iterator[Figure]:
    """Every figure, as it comes."""
    source = space.baselines()[space.reference].source
    with _timed() as cold:
        verdict_on(source, settings)
    yield Figure("a cold verdict of the gate (nas check), reference baseline", cold(), "s", "at most 20 s")
    with _timed() as started, warm_boxes(space) as (box,):
        yield Figure("start of a worker's zygote, everything imported", started(), "s")
        yield from _verdicts(settings, space, box)
        yield from _trial(settings, space, source, box)
        yield from _throughput(settings, space, box)
    yield from _search()
    with _timed() as imported:
        subprocess.run([sys.executable, "-c", "import nas.search"], check=True)
    yield Figure("python -c 'import nas.search'", imported(), "s", "a fraction of a second")


def _verdicts(settings: Settings, space: SearchSpace, box: Box) -> Iterator[Figure]:
    """The gate's warm verdict on every baseline, one at a time on one core."""
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    seconds = []
    for candidate in space.baselines().values():
        with temporary_folder("nas-bench-", box.root) as scratch, _timed() as verdict:
            run_gate(candidate.source, gate, box, scratch, 60, memory_bytes(settings))
        seconds.append(verdict())
    yield Figure("a warm verdict of the gate, mean over the baselines", sum(seconds) / len(seconds), "s", "at most 5 s")
    yield Figure("a warm verdict of the gate, slowest baseline", max(seconds), "s", "at most 5 s")


def _trial(settings: Settings, space: SearchSpace, source: str, box: Box) -> Iterator[Figure]:
    """One whole trial of the reference baseline at the default budget, and where its time goes."""
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder)
        for cache, goal in (("cold", ""), ("warm", "at least 80 %")):
            rung, cost = _trained(settings, source, box, gate, compiled=compiled)
            stepping = _steps(settings) * settings.train.batch * settings.train.time / rung["tokens_per_second"]
            whole, gating, name = cost["total_seconds"], cost["gate_seconds"], f"{cache} compile cache"
            compiling = rung["train_seconds"] - stepping
            yield Figure(f"a trial of the reference baseline, {name}", whole, "s")
            yield Figure(f"share of it in training steps, {name}", 100 * stepping / whole, "%", goal)
            yield Figure(f"share without the gate, {name}", 100 * stepping / (whole - gating), "%", goal)
            yield Figure(f"share of it in the gate, {name}", 100 * gating / whole, "%")
            yield Figure(f"share of it in compiling or loading the step, {name}", 100 * compiling / whole, "%")
    yield Figure("peak memory of the training process", rung["peak_bytes"] / 2**20, "MiB")


def _throughput(settings: Settings, space: SearchSpace, box: Box) -> Iterator[Figure]:
    """Training tokens/s of each baseline after compilation, on one core, each from a quarter of the default budget."""
    train = replace(settings.train, steps=max(1, settings.train.steps // 4), grid=(1.0,))
    for candidate in chosen_baselines(settings, space):
        rung, _ = _trained(replace(settings, train=train), candidate.source, box, gate=None, contends=None)
        yield Figure(f"training throughput: {candidate.name}", rung["tokens_per_second"], "tokens/s a core")


def _trained(
    settings: Settings,
    source: str,
    box: Box,
    gate: dict[str, Any] | None,
    contends: float | None = ANY,
    compiled: Path | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the last rung, the cost) of one trial."""
    with temporary_folder("nas-bench-", box.root) as folder:
        corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
        spec = make_spec(
            source,
            settings,
            corpus,
            gate=gate,
            rungs=rung_steps(settings),
            floored=False,
            contends_below=contends,
            seed=0,
            folder=folder,
            compiled=compiled,
        )
        messages: list[Any] = list(run_trial(spec, box))
    if messages[-1]["outcome"]["kind"] != "fitness":
        raise SystemExit(f"a trial failed: {messages[-1]['outcome']}")
    return messages[-2]["rung"], messages[-1]["cost"]


def _steps(settings: Settings) -> int:
    """Optimizer steps of a trial: those of the grid's other learning rates too."""
    return settings.train.steps + (len(settings.train.grid) - 1) * rung_steps(settings)[0]


def _search() -> Iterator[Figure]:
    """A small search as a person starts it, and what share of its trials' time the gate takes."""
    with tempfile.TemporaryDirectory() as folder, _timed() as searched:
        small = ["search.trials=6", "search.confirm_seeds=0", "search.noise_seeds=0", "tracking=none"]
        baselines = "search_space.baselines=[gated_deltanet,mamba2]"
        command = [sys.executable, "-m", "nas", "search", *small, baselines, f"results_dir={folder}", "name=bench"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        events = journals.read(Path(folder) / "bench" / "journal.jsonl")
    costs = [event["cost"] for event in events if event["event"] == "trial"]
    whole, gate = (sum(cost[part] for cost in costs) for part in ("total_seconds", "gate_seconds"))
    yield Figure(f"a search of {len(costs)} trials", searched(), "s")
    yield Figure("share of the search's trials in the gate", 100 * gate / whole, "%")


@contextmanager
def _timed() -> Iterator[Any]:
    started = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - started
    ended.append(time.perf_counter())


def _cpus() -> int:
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
