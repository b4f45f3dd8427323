"""Measures what a search costs at 1, 8, 64 and 1,024 accelerators, and writes results/scaling.md and .json.

    python -m nas.scaling [--short] [overrides]

Each search is simulated in a process of its own, two at a time, and kept in results/.cache: the same command goes on
where it was interrupted. `--short` simulates a tenth of the trials. Overrides are Hydra's.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nas import journal as journals
from nas.commands.measuring import kept_in, origin, write_report
from nas.configuration import composed, settings_of
from nas.errors import UserError
from nas.journal import Journal
from nas.scaling.driver import Costs, Fleet, simulated
from nas.scaling.report import markdown, row_of
from nas.settings import Settings
from nas.space import load_space
from nas.terminal import make_console

PROCESSES = 2
LENGTHS = (30.0, 300.0, 3600.0)  # seconds of training, of a trial that goes to its end
LOOPS = ((2, 60), (8, 120), (24, 240), (64, 400))  # workers, trials: of Tune's loop
_WRITTEN = 40  # trials whose events are written to MLflow
_LLM = ("proposer=llm", "llm.models=[simulated]", "llm.base_url=http://127.0.0.1:9/v1")
_ALONE = ("tracking=none",)  # of a thousand workers: MLflow is written to when the search has ended
_LIGHT = ("meta=uniform", "search.draws=1", "search.noise_seeds=0", "search.confirm_seeds=0")


@dataclass(frozen=True)
class Job:
    """One simulated search: its row in the report, its fleet, and what is set for it."""

    name: str
    workers: int
    train_seconds: float
    trials: int
    overrides: tuple[str, ...] = ()
    pending: int | None = None


def jobs(share: float) -> list[Job]:
    """All searches, with this share of their trials."""
    sizes = {1: 16, 8: 64, 64: 256, 1024: 1300}
    found = []
    for length in LENGTHS:
        for workers, trials in sizes.items():
            ten_thousand = workers == max(sizes) and length == LENGTHS[1]
            count = 10_000 if ten_thousand else trials
            own = _ALONE if workers == max(sizes) else ()
            found.append(Job("grammar", workers, length, max(8, round(share * count)), own))
            if length == LENGTHS[1]:
                ahead = (f"llm.concurrency={2 * workers + 2}", f"llm.ahead={2 * workers + 2}")
                found.append(Job("llm", workers, length, max(8, round(share * trials)), (*_LLM, *ahead, *own)))
    few = max(8, round(share * sizes[64]))
    one_by_one = Job("grammar, one worker starts at a time", 64, LENGTHS[1], few, pending=1)
    beside = Job("grammar, MLflow beside", 1024, LENGTHS[1], max(8, round(share * sizes[1024])))
    by_default = Job("llm, four calls at a time and eight proposals ahead", 64, LENGTHS[1], few, _LLM)
    return sorted([*found, one_by_one, beside, by_default], key=lambda job: -job.trials)  # the longest first


def main(words: Sequence[str]) -> int:
    overrides = [word for word in words if word != "--short"]
    settings, console, began = settings_of(composed(overrides)), make_console(), time.monotonic()
    load_space(settings.search_space.module)
    path = kept_in(settings, "scaling", [list(words), os.cpu_count()])
    journal = Journal(path)
    done = {event["job"]: event for event in journals.read(path)}

    def say(sentence: str) -> None:
        console.print(f"{(time.monotonic() - began) / 60:4.1f} min  {sentence}", markup=False, soft_wrap=True)

    def kept(name: str, found: Mapping[str, Any]) -> None:
        done[name] = journal.append({"event": "measured", "job": name, **found})
        say(name)

    with tempfile.TemporaryDirectory(prefix="nas-scaling-", dir=settings.results_dir) as folder:
        if "tune" not in done:
            try:
                kept("tune", {"loops": _loops(overrides, Path(folder), say)})
            except UserError as error:  # a busy machine on which Ray does not start
                say(f"Tune's loop is left out: {error}")
                done["tune"] = {"loops": []}
        if "mlflow" not in done:
            say("MLflow's writes ...")
            kept("mlflow", {"stores": _stores(overrides, Path(folder))})
        costs = _costs(done)
        left = [job for job in jobs(0.1 if "--short" in words else 1.0) if repr(job) not in done]
        say(f"{len(left)} searches, {PROCESSES} at a time, the longest first ...")
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            futures = {pool.submit(_row, job, overrides, costs, folder): job for job in left}
            for future in as_completed(futures):
                kept(repr(futures[future]), {"row": future.result()})
    journal.close()
    report = {
        **origin(" ".join(["python -m nas.scaling", *words]), [], range(PROCESSES), (time.monotonic() - began) / 60),
        "loops": done["tune"]["loops"],
        "stores": done["mlflow"]["stores"],
        "costs": asdict(costs),
        "rows": [event["row"] for event in done.values() if "row" in event],
    }
    console.print(f"written to {write_report(settings, 'scaling', report, markdown(report))}", markup=False)
    return 0


def _row(job: Job, overrides: Sequence[str], costs: Costs, folder: str) -> dict[str, Any]:
    settings = _settings(overrides, (f"search.trials={job.trials}", *job.overrides))
    space, fleet = load_space(settings.search_space.module), Fleet(job.workers, job.train_seconds, job.pending)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        began = time.monotonic()
        found = simulated(settings, space, fleet, costs, Path(own))
    return row_of(job.name, found, time.monotonic() - began)


def _loops(overrides: Sequence[str], folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    from nas.scaling.tune import loop

    settings = _settings(overrides, _LIGHT)
    space, loops = load_space(settings.search_space.module), []
    for workers, trials in LOOPS:
        say(f"Tune's loop, {trials} trials on {workers} workers ...")
        loops.append(asdict(loop(settings, space, workers, trials, folder)))
    return loops


def _stores(overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Store -> its pace, on the events of a small search."""
    from nas.scaling.store import pace, server

    settings = _settings(overrides, (*_LIGHT, f"search.trials={_WRITTEN}"))
    space, own = load_space(settings.search_space.module), folder / "written"
    simulated(settings, space, Fleet(8, LENGTHS[1]), Costs(), own)
    events = journals.read(own / "journal.jsonl")
    found = {"sqlite": asdict(pace(events, f"sqlite:///{folder / 'own.db'}", folder / "own"))}
    with server(folder) as uri:
        found["server"] = asdict(pace(events, uri, folder / "served"))
    return found


def _costs(done: Mapping[str, Any]) -> Costs:
    from nas.scaling.tune import Loop, line

    turn, per_worker = line([Loop(**one) for one in done["tune"]["loops"]])
    server = done["mlflow"]["stores"]["server"]
    return Costs(turn=turn, turn_per_worker=per_worker, write=server["seconds"], write_cpu=server["cpu"])


def _settings(overrides: Sequence[str], more: Sequence[str]) -> Settings:
    return settings_of(composed([*overrides, *more]))
