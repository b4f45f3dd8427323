"""A search as a person starts it: what share of its time trains, and the same candidates by plainer programs."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from nas import journal as journals
from nas.bench.figure import Figure, timed
from nas.journal import Event
from nas.preemption import workers
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace
from nas.tasks.corpus import prepare

SMALL = [
    *("search.trials=8", "search.confirm_seeds=0", "search.noise_seeds=0", "tracking=none"),
    "search_space.baselines=[gated_deltanet,mamba2]",
]
_ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
_LOOK_SECONDS = 0.5


def measure(settings: Settings, space: SearchSpace) -> Iterator[Figure]:
    """A small search at the default budget of a trial, with the default number of workers: one a core."""
    with tempfile.TemporaryDirectory() as folder:
        with timed() as searched:
            memory = _search(Path(folder))
        wall, at_a_time = searched(), os.cpu_count() or 1
        events = journals.read(Path(folder) / "bench" / "journal.jsonl")
        ended = [event for event in events if event["event"] == "trial"]
        yield Figure(f"a search of {len(ended)} trials", wall, "s")
        room = wall * at_a_time
        yield Figure(
            "its workers' time in training steps", 100 * _stepping(ended, settings) / room, "%", "at least 85 %"
        )
        for part, seconds in _parts(ended, settings).items():
            yield Figure(f"its workers' time in {part}", 100 * seconds / room, "%")
        idle = room - sum(event["cost"]["total_seconds"] for event in ended)
        yield Figure("its workers' time without a trial: the start, the end, proposals", 100 * idle / room, "%")
        for name, size in memory.items():
            yield Figure(f"peak memory of {name}", size / 2**20, "MiB")
        jobs = jobs_of(Path(folder), [event for event in ended if event["outcome"]["kind"] == "fitness"], settings)
        hourly = 3600 * len(jobs) / wall
        yield Figure("trained candidates", hourly, "an hour")
        with timed() as cold, ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(lambda job: _run("nas.bench.plain", [job]), jobs))
        yield Figure(
            "by the same ones in a cold process each", hourly / (3600 * len(jobs) / cold()), "times", "at least 4"
        )
        with timed() as tuned:
            _run("nas.bench.plain_tune", jobs)
        yield Figure(
            "by the same ones with Ray Tune alone", hourly / (3600 * len(jobs) / tuned()), "times", "at least 2"
        )


def _search(folder: Path) -> Mapping[str, int]:
    """Runs it. Peak resident bytes of its driver, and of one worker with what it contains."""
    command = [sys.executable, "-m", "nas", "search", *SMALL, f"results_dir={folder}", "name=bench"]
    process, peaks = (
        subprocess.Popen(command, stdout=subprocess.DEVNULL),
        {"the driver": 0, "a worker and its trial": 0},
    )
    over = threading.Event()

    def watch() -> None:
        driver = psutil.Process(process.pid)
        while not over.wait(_LOOK_SECONDS):
            with suppress(psutil.Error):
                peaks["the driver"] = max(peaks["the driver"], driver.memory_info().rss)
                for worker in workers():
                    if driver in worker.parents():
                        peaks["a worker and its trial"] = max(peaks["a worker and its trial"], _resident(worker))

    watching = threading.Thread(target=watch)
    watching.start()
    code = process.wait()
    over.set()
    watching.join()
    if code:
        raise SystemExit("the search of the bench failed")
    return peaks


def _resident(process: psutil.Process) -> int:
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def _stepping(ended: Sequence[Event], settings: Settings) -> float:
    """Seconds of training steps, those of the grid's other learning rates too, at the pace after compilation."""
    train, others = settings.train, (len(settings.train.grid) - 1) * rung_steps(settings)[0]
    last = [event["rungs"][-1] for event in ended if event["rungs"]]
    return sum((rung["step"] + others) * train.batch * train.time / rung["tokens_per_second"] for rung in last)


def _parts(ended: Sequence[Event], settings: Settings) -> Mapping[str, float]:
    """Where the rest of their trials' seconds went."""
    gate, train, whole = (
        sum(event["cost"][name] for event in ended) for name in ("gate_seconds", "train_seconds", "total_seconds")
    )
    stepping = _stepping(ended, settings)
    inside = sum(event["rungs"][-1]["train_seconds"] for event in ended if event["rungs"])
    return {
        "the gate": gate,
        "compiling or loading the step": inside - stepping,
        "evaluation, checkpoints, rescoring and the start of processes": train - inside,
        "what else a trial does": whole - gate - train,
    }


def jobs_of(folder: Path, ended: Sequence[Event], settings: Settings) -> list[str]:
    """Files for `nas.bench.plain`: each candidate up to the step where the search has ended it."""
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    shared: dict[str, Any] = {
        "model": asdict(settings.model),
        "train": asdict(settings.train),
        "data": {split: str(corpus.file(split)) for split in ("train", "validation")},
        "dtype": corpus.dtype,
        "token_bytes": str(corpus.token_bytes),
        "validation_windows": settings.task.validation_windows,
    }
    files = []
    for event in ended:
        rungs = [step for step in rung_steps(settings) if step <= event["outcome"]["step"]]
        file = folder / f"{event['id']}.json"
        file.write_text(json.dumps({**shared, "source": event["candidate"]["source"], "rungs": rungs}))
        files.append(str(file))
    return files


def _run(module: str, arguments: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD},
    )
