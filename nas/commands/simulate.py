"""`nas simulate`: hundreds of searches on the table of `nas tabulate`: what the parts of the engine are worth.

Every design searches the same table from the same starters. What counts is how many evaluations it takes to one of the
best 1 % of all candidates, by their mean over training seeds; a search sees one seed of each, as a real one does.
"""

import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nas.commands.measuring import markdown_table, origin, origin_lines, write_report
from nas.configuration import composed, settings_of
from nas.meta import Posterior
from nas.settings import Settings
from nas.simulate import Run, TableSpace, engine, random_search, read_table, regularised_evolution
from nas.space import load_space
from nas.statistics import mean_interval
from nas.terminal import make_console

RANDOM, EVOLUTION, ENGINE = "random search", "regularised evolution, uniform operators", "the engine"
UNIFORM = "uniform operators"
# What is changed in the engine as it is configured.
DESIGNS: Mapping[str, Sequence[str]] = {
    ENGINE: (),
    "of the best two parents": ("search.elites=2",),
    "three islands": ("search.islands=3",),
    "discounted UCB": ("meta=ducb",),
    "discounted UCB without contexts": ("meta=ducb", "meta.contexts=false"),
    "discounted UCB, gains per cost": ("meta=ducb", "meta.cost=true"),
    "sliding-window UCB": ("meta=swucb",),
    "Thompson sampling": ("meta=thompson",),
    "adaptive pursuit": ("meta=pursuit",),
    UNIFORM: ("meta=uniform",),
    "discounted UCB, no predictor": ("meta=ducb", "search.draws=1"),
    "uniform operators, no predictor": ("meta=uniform", "search.draws=1"),
}
AT = (10, 25, 50, 100, 200)  # evaluations
_CONTROL = ["search.confirm_seeds=0", "search.noise_seeds=0", "tracking=none"]
_EARLY = 25  # trials
_RESAMPLES = 2000


@dataclass(frozen=True)
class Job:
    """One search: of the design, on the table, with the overrides; of the engine after what was learned on another."""

    design: str
    overrides: tuple[str, ...]
    table: str
    seed: int
    learned_on: str | None = None


def simulate(overrides: Sequence[str], given: Sequence[str]) -> int:
    """Searches, shows and writes results_dir/meta.md. Returns 0.

    Args:
      overrides: of the configuration; `given` are those that a person gave.

    Raises:
      UserError: with one sentence.
    """
    settings = settings_of(composed(list(overrides)))
    wanted = settings.simulate
    path = str(Path(wanted.table) if wanted.table else Path(settings.results_dir) / "table.csv")
    table = read_table(Path(path))
    console, began = make_console(), time.monotonic()
    seeds = range(settings.seed, settings.seed + wanted.seeds)
    names = [RANDOM, EVOLUTION, *DESIGNS]
    jobs = [Job(name, (*overrides, *DESIGNS.get(name, ())), path, seed) for name in names for seed in seeds]
    if wanted.transfer:
        read_table(Path(wanted.transfer))
        jobs += [Job(ENGINE, tuple(overrides), wanted.transfer, seed, on) for on in (None, path) for seed in seeds]
    found: dict[tuple[str, str, str | None], list[Run]] = defaultdict(list)
    context = get_context("spawn")
    processes = wanted.processes or os.cpu_count() or 1
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for number, (job, run) in enumerate(zip(jobs, pool.map(_searched, jobs, chunksize=5), strict=True), 1):
            found[job.design, job.table, job.learned_on].append(run)
            if number % wanted.seeds == 0:
                console.print(f"{number} of {len(jobs)} searches: {job.design}", markup=False)
    most = settings.search.trials
    report: dict[str, Any] = {
        **origin("nas simulate", given, range(processes), (time.monotonic() - began) / 60),
        "candidates": len(table.scores),
        "best": len(table.best),
        "noise_of_difference": next(iter(table.noise(1).difference.values())).deviation if table.noise(1) else None,
        "seeds": wanted.seeds,
        "most": most,
        "workers": wanted.workers,
        "designs": _compared({name: found[name, path, None] for name in names}, table.best, table.regret, most),
        "operators": _operators(found[UNIFORM, path, None]),
        "transfer": None,
    }
    if wanted.transfer:
        other = read_table(Path(wanted.transfer))
        pair = {
            "from nothing": found[ENGINE, wanted.transfer, None],
            "from the posterior": found[ENGINE, wanted.transfer, path],
        }
        report["transfer"] = {"table": wanted.transfer, "designs": _compared(pair, other.best, other.regret, most)}
    written = write_report(settings, "meta", report, _markdown(report))
    console.print("\n".join([*_table(report["designs"]), f"written to {written}"]), markup=False, soft_wrap=True)
    return 0


# In a process of its own


def _searched(job: Job) -> Run:
    settings, space = _settings(job.overrides), _space(job.table)
    if job.design == RANDOM:
        return random_search(space, len(space.table.scores), job.seed)
    if job.design == EVOLUTION:
        return regularised_evolution(space, settings.search.trials, job.seed)
    workers = settings.simulate.workers
    prior: Posterior | None = None
    if job.learned_on:
        # Another seed: the same draws would make the same choices until the tables tell them apart.
        first = replace(settings, seed=job.seed + 10_000)
        prior = engine(_space(job.learned_on), first, workers).posterior
    return engine(space, replace(settings, seed=job.seed), workers, prior)


@cache
def _settings(overrides: Sequence[str]) -> Settings:
    return settings_of(composed([*_CONTROL, *overrides]))


@cache
def _space(table: str) -> TableSpace:
    return TableSpace(read_table(Path(table)), load_space(Settings().search_space.module))


# What was found


def _compared(
    runs: Mapping[str, Sequence[Run]], best: frozenset[Any], regret: Mapping[Any, float], most: int
) -> list[dict[str, Any]]:
    """For each design: evaluations to the best, their ratios to the first and second design, regret on the way."""
    counts = {name: [run.evaluations_to(best) or most for run in of_one] for name, of_one in runs.items()}
    missed = {name: sum(run.evaluations_to(best) is None for run in of_one) for name, of_one in runs.items()}
    controls = list(runs)[:2]
    return [
        {
            "design": name,
            "evaluations": _interval(counts[name]),
            "median": sorted(counts[name])[len(counts[name]) // 2],
            "never": missed[name],
            "ratios": [_ratio(counts[name], counts[control]) for control in controls],
            "regret": {str(at): _interval([_regret(run, regret, at) for run in of_one]) for at in AT if at <= most},
        }
        for name, of_one in runs.items()
    ]


def _regret(run: Run, regret: Mapping[Any, float], at: int) -> float:
    """Bits per byte of the best that was tried in `at` evaluations, above the table's best."""
    return min(regret[genome] for genome in run.tried[:at])


def _interval(values: Sequence[float]) -> dict[str, float]:
    found = mean_interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _ratio(values: Sequence[float], control: Sequence[float]) -> dict[str, float]:
    """Of the means, with a 95% interval by the percentile bootstrap: the searches of the two are drawn apart."""
    import numpy as np

    rng = np.random.default_rng(0)

    def means(of: Sequence[float]) -> Any:
        array = np.asarray(of, np.float64)
        return array[rng.integers(0, len(array), (_RESAMPLES, len(array)))].mean(axis=1)

    low, high = np.quantile(means(values) / means(control), [0.025, 0.975])
    return {"mean": float(np.mean(values) / np.mean(control)), "low": float(low), "high": float(high)}


def _operators(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What each operator gained, early and late in a search, where all are drawn evenly."""
    gains: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for run in runs:
        for operator, before, gain in run.gains:
            gains[operator, before < _EARLY].append(max(gain, 0.0))
    rows = []
    for operator in dict.fromkeys(name for name, _ in gains):
        row: dict[str, Any] = {"operator": operator}
        for when, early in (("early", True), ("late", False)):
            values = gains[operator, early]
            row[when] = (
                {**_interval(values), "success": sum(g > 0 for g in values) / len(values)} if len(values) > 1 else None
            )
        rows.append(row)
    return sorted(rows, key=lambda row: -(row["early"] or {"mean": 0.0})["mean"])


# For people


def _markdown(report: Mapping[str, Any]) -> str:
    noise = report["noise_of_difference"]
    lines = [
        "# What the meta-learner and the population are worth",
        "",
        *origin_lines(dict(report)),
        f"{report['seeds']} searches of each design on the {report['candidates']} candidates of `table.csv`, "
        f"{report['workers']} in flight, {report['most']} proposals at most. Evaluations until one of the best "
        f"{report['best']} (1 %, by the mean over training seeds) was tried, the starters counted; a search that "
        f"never tried one counts as {report['most']}. Random search goes on until it has. "
        "A search sees one training seed; the difference of two candidates has a standard deviation of "
        f"{'unknown size' if noise is None else f'{noise:.4f}'} over seeds.",
        "",
        *_table(report["designs"]),
        "Means with 95% intervals: Student's t; of the ratios of means, the percentile bootstrap.",
        "",
        "## Regret: bits per byte of the best so far above the table's best",
        "",
        *_regrets(report["designs"]),
        f"## What operators gain, drawn evenly: the first {_EARLY} trials and the later ones",
        "",
        *_gains(report["operators"]),
    ]
    if transfer := report["transfer"]:
        lines += [
            f"## Transfer to `{transfer['table']}`",
            "",
            *_table(transfer["designs"]),
            *_regrets(transfer["designs"]),
        ]
    return "\n".join(lines)


def _table(designs: Sequence[Mapping[str, Any]]) -> list[str]:
    controls = [design["design"] for design in designs[:2]]
    headers = ["design", "evaluations to the best 1 %", "median", "never", *(f"over {name}" for name in controls)]
    return markdown_table(
        headers,
        [
            [
                design["design"],
                _words(design["evaluations"], "{:.1f}"),
                design["median"],
                design["never"],
                *(_words(ratio, "{:.2f}") for ratio in design["ratios"]),
            ]
            for design in designs
        ],
    )


def _regrets(designs: Sequence[Mapping[str, Any]]) -> list[str]:
    at = list(designs[0]["regret"])
    rows = [[design["design"], *(_words(design["regret"][n], "{:.4f}") for n in at)] for design in designs]
    return markdown_table(["design", *(f"after {n}" for n in at)], rows)


def _gains(operators: Sequence[Mapping[str, Any]]) -> list[str]:
    headers = ["operator", "early: mean gain", "early: gains beyond the noise", "late: mean gain", "late: gains"]

    def cells(found: Mapping[str, float] | None) -> list[str]:
        return [_words(found, "{:.4f}"), f"{found['success']:.0%}"] if found else ["", ""]

    return markdown_table(headers, [[row["operator"], *cells(row["early"]), *cells(row["late"])] for row in operators])


def _words(found: Mapping[str, float], form: str) -> str:
    ends = [form.format(found[name]) for name in ("low", "high")]
    return (
        f"{form.format(found['mean'])} [{', '.join(ends)}]"
        if math.isfinite(found["low"])
        else form.format(found["mean"])
    )
