"""What the commands that measure share: contained work on every core that outlives an interrupt, and its report."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nas import journal as journals
from nas.errors import UserError
from nas.journal import Event, Journal
from nas.sandbox import Box, temporary_folder
from nas.search import baselines_of
from nas.settings import Settings
from nas.space import SearchSpace
from nas.trial import PRELOAD
from nas.types import Candidate

Job = TypeVar("Job")

_LIBRARIES = ("jax", "flax", "optax", "numpy")
_LINES = 20  # of progress, where there is no terminal to draw a bar in
_CLOSING_SECONDS = 1.0
_PACE_SECONDS = 300.0  # over which the time that is left is estimated: jobs differ


# Work


def at_a_time(settings: Settings) -> tuple[int, int]:
    """(trials at a time on this machine, threads of each)."""
    threads = max(1, int(settings.execution.cpus_per_trial))
    return settings.execution.workers or max(1, (os.cpu_count() or 1) // threads), threads


@contextmanager
def warm_boxes(space: SearchSpace, count: int = 1, threads: int = 1, tier: str = "auto") -> Iterator[list[Box]]:
    """`count` boxes with everything imported, which are closed at the end."""
    with temporary_folder("nas-measure-") as folder:
        boxes = [
            Box((*PRELOAD, *sorted(space.allowed_imports)), threads, tier, folder / str(number))
            for number in range(count)
        ]
        try:
            for box in boxes:
                box.start()
            for box in boxes:
                box.wait_until_ready()
            yield boxes
        finally:
            for box in boxes:
                box.close()


def measure(
    path: Path,
    jobs: Iterable[tuple[str, Job]],
    total: int,
    work: Callable[[Job, Box, Path], Event],
    boxes: Sequence[Box],
    console: Console,
    going_on: bool = True,
) -> dict[str, Event]:
    """Key -> what `work` found, for every (key, job). What the file at `path` has already is not done again.

    Each result is on disk before the next job begins, so that an interrupt loses only what was running.

    Args:
      path: one JSON object a line; the caller puts into its name whatever the results depend on.
      jobs: are begun while later ones are still being made.
      total: how many jobs there will be, for the progress.
      work: (job, box, scratch folder) -> JSON values. What it raises becomes `{"outcome": Crashed("engine", ...)}`.
      boxes: one job at a time runs in each.
      going_on: whether to say what is there already.

    Raises:
      JournalError: if `path` can't be written, or another process is writing it.
    """
    journal = Journal(path)
    try:
        # What crashed is tried again: it may have been the machine's fault.
        done = {event["job"]: event for event in journals.read(path) if not _crashed(event)}
        if done and going_on:
            console.print(f"going on with the {len(done)} results in {path}", soft_wrap=True)
        # The file may have results of other jobs too, which only a collection of jobs can tell.
        whole = isinstance(jobs, Collection)
        left = sum(key not in done for key, _ in jobs) if whole else max(0, total - len(done))
        with _progress(console, left) as advance:

            def keep(key: str, found: Event) -> None:
                done[key] = journal.append({**found, "event": "measured", "job": key})
                advance()

            _work_through((pair for pair in jobs if pair[0] not in done), work, keep, boxes)
    except KeyboardInterrupt:
        console.print(f"stopped: the same command goes on with the {len(done)} results in {path}", soft_wrap=True)
        raise
    finally:
        journal.close()
    return done


def _crashed(event: Event) -> bool:
    return bool(event.get("outcome", {}).get("kind") == "crashed")


def _work_through(
    jobs: Iterable[tuple[str, Job]],
    work: Callable[[Job, Box, Path], Event],
    keep: Callable[[str, Event], None],
    boxes: Sequence[Box],
) -> None:
    interrupted = threading.Event()
    free: SimpleQueue[Box] = SimpleQueue()
    for box in boxes:
        free.put(box)

    def run(key: str, job: Job) -> None:
        box = free.get()
        try:
            found = _found(job, work, box)
            if not interrupted.is_set():  # else it failed because its box was closed
                keep(key, found)
        finally:
            free.put(box)

    pool = ThreadPoolExecutor(len(boxes))
    futures: list[Future[None]] = []
    try:
        for key, job in jobs:
            futures.append(pool.submit(run, key, job))
        for future in futures:
            future.result()
    except BaseException:
        interrupted.set()
        pool.shutdown(wait=False, cancel_futures=True)
        running = [future for future in futures if not future.cancelled()]
        for box in boxes:
            box.close()  # ends what runs in it
        while wait(running, _CLOSING_SECONDS).not_done:  # one was about to start, and did after that
            for box in boxes:
                box.close()
        raise
    finally:
        pool.shutdown()


def _found(job: Job, work: Callable[[Job, Box, Path], Event], box: Box) -> Event:
    try:
        with temporary_folder("nas-measure-", box.root) as scratch:
            return work(job, box, scratch)
    except Exception:
        return {"outcome": {"kind": "crashed", "cause": "engine", "reason": traceback.format_exc()}}


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after each of `total` jobs: a bar in a terminal, lines elsewhere."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    lock, started, ended = threading.Lock(), time.monotonic(), 0
    drawn = console.is_terminal and total > 0
    with Progress(*columns, console=console, speed_estimate_period=_PACE_SECONDS, disable=not drawn) as bar:
        task = bar.add_task("", total=total)

        def advance() -> None:
            nonlocal ended
            with lock:
                ended += 1
                bar.advance(task)
                if not drawn and ended % max(1, total // _LINES) == 0:
                    left = (time.monotonic() - started) / ended * (total - ended)
                    console.print(f"{ended} of {total}, about {left / 60:.1f} minutes left")

        yield advance


# What is measured, what the results depend on, and where they came from


def chosen_baselines(settings: Settings, space: SearchSpace) -> list[Candidate]:
    """The baselines and outside references that `search_space.baselines` names, all if it names none.

    The reference comes first. A search without names trains only the space's starters.

    Raises:
      UserError: if a name is wrong.
    """
    names = settings.search_space.baselines or (*space.baselines(), *space.outside_references())
    named = replace(settings, search_space=replace(settings.search_space, baselines=tuple(names)))
    return baselines_of(named, space)


def kept_in(settings: Settings, name: str, depends_on: Any) -> Path:
    """The file for results that depend on these values, the sources of engine and space, and the libraries."""
    return Path(settings.results_dir) / ".cache" / f"{name}-{digest_of(settings, depends_on)}.jsonl"


def digest_of(settings: Settings, depends_on: Any) -> str:
    """Twelve hexadecimal digits that name these values, the sources of engine and space, and the libraries."""
    digest = hashlib.sha256(json.dumps([depends_on, _versions()], sort_keys=True).encode())
    for file in source_files(settings):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def source_files(settings: Settings) -> list[Path]:
    """The Python files of the engine and of the search space, which has to be loaded."""
    return [*_sources("nas"), *_sources(settings.search_space.module)]


def _sources(module: str) -> list[Path]:
    """The Python files of a module's package; of a module without one, its own."""
    found = sys.modules[module]
    file = Path(found.__file__ or "")
    return sorted(file.parent.rglob("*.py")) if found.__package__ else [file]


def origin(command: str, overrides: Sequence[str], boxes: Sized, minutes: float) -> dict[str, Any]:
    """How the numbers came about: the command, the machine, the versions, the wall-clock of this run."""
    return {
        "command": " ".join([command, *overrides]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {len(boxes)} at a time",
        "versions": _versions(),
        "minutes": round(minutes, 2),
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _LIBRARIES}


# Reports


def write_report(settings: Settings, name: str, report: dict[str, Any], markdown: str) -> Path:
    """Writes results_dir/NAME.json and NAME.md; returns the latter's path.

    Raises:
      UserError: if they can't be written.
    """
    path = Path(settings.results_dir) / f"{name}.md"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        path.write_text(markdown, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    return path


def origin_lines(report: dict[str, Any]) -> list[str]:
    """The Markdown lines that a report opens with."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return [
        f"    {report['command']}",
        "",
        f"{report['machine']}; {versions}; {report['minutes']:.1f} minutes of wall-clock "
        "(the last run's alone, if it was interrupted).",
        "",
    ]


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown lines of a table, and an empty one."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [list(headers), ["---"] * len(headers), *cells]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
