"""The gate, and one trial at the default budget: where the time of each goes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.bench.figure import Figure, timed
from nas.commands.check import verdict_on
from nas.commands.measuring import chosen_baselines, warm_boxes
from nas.sandbox import Box, temporary_folder
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace
from nas.tasks.corpus import prepare
from nas.trial import ANY, gate_arguments, make_spec, memory_bytes, run_gate, run_trial


def measure(settings: Settings, space: SearchSpace) -> Iterator[Figure]:
    """Every figure, as it comes."""
    source = space.baselines()[space.reference].source
    with timed() as cold:
        verdict_on(source, settings)
    yield Figure("a cold verdict of the gate (nas check), reference baseline", cold(), "s", "at most 20 s")
    with timed() as started, warm_boxes(space) as (box,):
        yield Figure("start of a worker's zygote, everything imported", started(), "s")
        yield from _verdicts(settings, space, box)
        yield from _trial(settings, space, source, box)
        yield from _throughput(settings, space, box)
    with timed() as imported:
        subprocess.run([sys.executable, "-c", "import nas.search"], check=True)
    yield Figure("python -c 'import nas.search'", imported(), "s", "a fraction of a second")


def _verdicts(settings: Settings, space: SearchSpace, box: Box) -> Iterator[Figure]:
    """The gate's warm verdict on every baseline, one at a time on one core."""
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    seconds = []
    for candidate in space.baselines().values():
        with temporary_folder("nas-bench-", box.root) as scratch, timed() as verdict:
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
