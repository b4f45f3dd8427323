"""The rows of results/scaling.md: numbers of a simulated search, and the words around them. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from nas.commands.measuring import markdown_table, origin_lines
from nas.scaling.driver import Found

GOAL = 0.95  # share of the time in which accelerators are to be busy
_PARTS = {"ask": "proposing", "result": "results", "team": "language models", "tune": "Tune", "disk": "disk"}
_MIB = 2**20


def row_of(name: str, found: Found, wall: float) -> dict[str, Any]:
    """JSON values. Of the driver: milliseconds for each result, or for each trial where it says so.

    Args:
      wall: seconds that the simulation took.
    """
    fifth = max(1, len(found.handled) // 5)
    per_trial = {part: 1e3 * seconds / found.trials for part, seconds in sorted(found.spent.items())}
    return {
        "proposals": name,
        "workers": found.fleet.workers,
        "train_seconds": found.fleet.train_seconds,
        "trials": found.trials,
        "hours": found.seconds / 3600,
        "device_hours": sum(till - since for since, till in found.worked) / 3600,
        "busy": found.busy,
        "busy_whole": found.busy_whole,
        "results_per_second": len(found.handled) / found.seconds,
        "driver_busy": found.driver_busy,
        "median": 1e3 * statistics.median(found.handled),
        "p99": 1e3 * percentile(found.handled, 0.99),
        "at_first": 1e3 * statistics.median(found.handled[:fifth]),
        "at_last": 1e3 * statistics.median(found.handled[-fifth:]),
        "per_trial": per_trial,
        "sync": 1e3 * statistics.median(found.synced),
        "waited": found.waited / len(found.handled),
        "memory": found.memory,
        "memory_per_trial": (found.memory - found.memory_before) / found.trials,
        "journal_per_trial": found.journal_bytes / found.trials,
        "spec_at_last": max(found.spec_bytes[-fifth:]),
        "writes_per_trial": found.writes / found.trials,
        "writes_per_second": found.writes / found.seconds,
        "write_lag": found.write_lag,
        "by": found.by,
        "stale": statistics.mean(found.stale),
        "tokens": found.tokens,
        "llm_calls": found.llm_calls,
        "wall": wall,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bottleneck(row: Mapping[str, Any]) -> str:
    """What keeps accelerators from being busy at least 95% of the time, in a few words; nothing where they are."""
    if row["busy"] >= GOAL:
        return ""
    if row["driver_busy"] < 0.5:
        return "waiting for proposals, or for workers to start"
    part = max(row["per_trial"], key=lambda name: row["per_trial"][name])
    return f"the driver: {_PARTS.get(part, part)}"


def markdown(report: Mapping[str, Any]) -> str:
    rows = sorted(report["rows"], key=lambda row: (row["proposals"], row["train_seconds"], row["workers"]))
    return "\n".join(
        [
            "# What a search costs on many accelerators",
            "",
            *origin_lines(dict(report)),
            "Simulated: training, the gate (5 s), language models (a proposal 20 s, an analysis 8 s, at the median), "
            "and workers' starts (6 s) take virtual time. Real: searcher, Tune's searcher and scheduler, journal with "
            "its "
            "sync, grammar, prompts, what MLflow is sent. The driver's time is CPU time and the waits for the disk, "
            "so others on the machine disturb it little; Tune's turn and MLflow's write are measured below, and added. "
            "A trial that goes to its end trains for the time in the column *training*; most are stopped at the first "
            "rung. *Busy* is the share of the accelerators' time from when all have a trial until the last proposal is "
            "handed out; *whole* from the beginning to the end, where baselines come first and fresh seeds last.",
            "",
            *_table(rows),
            "## The driver, in milliseconds",
            "",
            *_driver(rows),
            "## What is kept and sent",
            "",
            *_kept(rows),
            "## Tune's loop",
            "",
            *_loops(report),
            "## MLflow",
            "",
            *_stores(report),
            *_tokens(rows),
        ]
    )


def _fleet(row: Mapping[str, Any]) -> list[Any]:
    return [row["proposals"], f"{row['train_seconds'] / 60:g} min", f"{row['workers']:,}", f"{row['trials']:,}"]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    headers = ["proposals", "training", "workers", "trials", "hours", "device-hours", "results/s", "driver busy"]
    return markdown_table(
        [*headers, "busy", "whole", "what keeps it under 95%"],
        [
            [
                *_fleet(row),
                *(f"{row['hours']:.2f}", f"{row['device_hours']:.1f}", f"{row['results_per_second']:.3f}"),
                *(f"{row[name]:.1%}" for name in ("driver_busy", "busy", "busy_whole")),
                bottleneck(row),
            ]
            for row in rows
        ],
    )


def _driver(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    headers = ["proposals", "training", "workers", "trials", "a result: median", "p99", "first fifth", "last fifth"]
    names = sorted({name for row in rows for name in row["per_trial"]})
    return markdown_table(
        [*headers, "a sync: median", *(f"a trial: {_PARTS.get(name, name)}" for name in names)],
        [
            [
                *_fleet(row),
                *(f"{row[name]:.1f}" for name in ("median", "p99", "at_first", "at_last")),
                f"{row['sync']:.2f}",
                *(f"{row['per_trial'].get(name, 0.0):.1f}" for name in names),
            ]
            for row in rows
        ],
    )


def _kept(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    headers = ["proposals", "training", "workers", "trials", "driver's memory, MiB", "of that a trial, KiB"]
    return markdown_table(
        [
            *headers,
            "journal a trial, KiB",
            "last specification, KiB",
            "MLflow writes a trial",
            "a second",
            "longest lag",
        ],
        [
            [
                *_fleet(row),
                *(f"{row['memory'] / _MIB:.0f}", f"{row['memory_per_trial'] / 1024:.1f}"),
                *(f"{row['journal_per_trial'] / 1024:.1f}", f"{row['spec_at_last'] / 1024:.0f}"),
                *(f"{row['writes_per_trial']:.1f}", f"{row['writes_per_second']:.2f}", f"{row['write_lag']:.0f} s"),
            ]
            for row in rows
        ],
    )


def _loops(report: Mapping[str, Any]) -> list[str]:
    if not report["loops"]:
        return ["Not measured: Ray did not start. What Tune's loop takes is in none of these figures.", ""]
    costs = report["costs"]
    rows = [
        [
            *(one["workers"], one["trials"], f"{one['results'] / one['seconds']:.1f}"),
            *(
                f"{1e3 * max(0.0, one['cpu'] - one['ours']) / one['results']:.1f}",
                f"{one['bytes_per_trial'] / 1024:.0f}",
            ),
        ]
        for one in report["loops"]
    ]
    turn = costs["turn"] + 1024 * costs["turn_per_worker"]
    return [
        "A real Ray on this machine, with workers that train nothing; the workers share its cores.",
        "",
        *markdown_table(["workers", "trials", "results/s", "Tune's CPU a result, ms", "memory a trial, KiB"], rows),
        f"A line through these: {1e3 * costs['turn']:.2f} ms and {1e6 * costs['turn_per_worker']:.1f} us a worker; so "
        f"{1e3 * turn:.1f} ms at 1,024, extrapolated from {max(one['workers'] for one in report['loops'])} at most. "
        f"So Tune's loop by itself takes {1 / max(turn, 1e-9):,.0f} results a second there.",
        "",
    ]


def _stores(report: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, one["writes"], f"{1e3 * one['seconds']:.0f}", f"{1e3 * one['cpu']:.0f}", f"{1 / one['seconds']:.1f}"]
        for name, one in report["stores"].items()
    ]
    return [
        "A search's events, one after the other as its thread writes them: SQLite, and a server with one process.",
        "",
        *markdown_table(["store", "writes", "a write, ms", "of that the driver's CPU, ms", "writes/s"], rows),
    ]


def _tokens(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [row for row in rows if row["tokens"]]
    if not found:
        return []
    table = [
        [
            *_fleet(row),
            *(f"{row['by'].get('llm', 0):,}", f"{row['by'].get('grammar', 0):,}", f"{row['stale']:.0f}"),
            f"{sum(row['llm_calls'].values()) / row['trials']:.2f}",
            *(
                f"{sum(n for name, n in row['tokens'].items() if name.endswith(end)) / row['trials']:,.0f}"
                for end in ("in", "out")
            ),
        ]
        for row in found
    ]
    headers = [
        "proposals",
        "training",
        "workers",
        "trials",
        "by models",
        "by the grammar",
        "trials told since the draw",
    ]
    return [
        "## Language models",
        "",
        "Tokens are letters / 3.5, of real prompts; answers hold the grammar's sources and prose of a model's length.",
        "",
        *markdown_table([*headers, "calls a trial", "tokens in a trial", "tokens out"], table),
    ]
