"""`make bench`: what takes how long, as one table and `results/bench.json`.

    python -m nas.bench [PART...]            about twenty minutes on two cores, all parts; see `PARTS`

Each row is a figure, its unit and the goal it is held against, where there is one. With parts named, the rows of the
others stay as an earlier run has left them.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from nas.bench import driver, search, step, trial
from nas.bench.figure import Figure
from nas.configuration import composed, settings_of
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.terminal import make_console

OUTPUT = Path("results/bench.json")
PARTS: dict[str, Callable[[Settings, SearchSpace], Iterator[Figure]]] = {
    "trial": trial.measure,
    "step": step.measure,
    "driver": driver.measure,
    "search": search.measure,
}


def main(chosen: list[str]) -> None:
    console = make_console()
    if unknown := set(chosen) - PARTS.keys():
        raise SystemExit(f"nas.bench: there is no part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    settings = settings_of(composed([]))
    space = load_space(settings.search_space.module)
    measured: dict[str, list[dict[str, Any]]] = _earlier()
    for name in chosen or PARTS:
        measured[name] = []
        for figure in PARTS[name](settings, space):
            console.print(f"{figure.name}: {figure.value:,.2f} {figure.unit}", soft_wrap=True)
            measured[name].append(asdict(figure))
    table = Table(
        "what", "figure", "unit", "goal", title=f"{platform.processor() or platform.machine()}, {_cpus()} cores"
    )
    for row in (row for name in PARTS for row in measured.get(name, [])):
        table.add_row(row["name"], f"{row['value']:,.2f}", row["unit"], row["goal"])
    console.print(table)
    OUTPUT.parent.mkdir(exist_ok=True)
    record = {"command": "make bench", "python": platform.python_version(), "cores": _cpus()}
    OUTPUT.write_text(
        json.dumps({**record, "parts": {name: measured.get(name, []) for name in PARTS}}, indent=1) + "\n"
    )
    console.print(f"written to {OUTPUT}")


def _earlier() -> dict[str, list[dict[str, Any]]]:
    try:
        found: dict[str, list[dict[str, Any]]] = json.loads(OUTPUT.read_text())["parts"]
        return found
    except (OSError, ValueError, KeyError):
        return {}


def _cpus() -> int:
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(sys.argv[1:])
