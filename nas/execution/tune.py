"""Runs a search on Ray Tune, on this machine or on a cluster."""

import logging
import math
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before Ray is imported: no authentication token in the home folder, no usage report, no logger files for each trial.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its reports would mix with ours
os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "2")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # an outcome that is no fitness has no metric
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")

import psutil
import ray
from ray import tune
from tenacity import Retrying, stop_after_attempt, wait_random

from nas.errors import UserError
from nas.execution.ask_tell import AskTell, EndOfSearch, Losses
from nas.execution.scheduler import Halving
from nas.execution.worker import TrialWorker
from nas.search import Assignment, Search, rung_steps
from nas.settings import ExecutionSettings, Settings
from nas.terminal import printable
from nas.trial import TrialSpec
from nas.types import Rung

_STARTS, _PAUSE_SECONDS = 4, 10.0  # of a Ray of our own, and at most between two of them
_BYTES_PER_TRIAL = 1.25 * 2**30  # worker, zygote and training took under 1 GiB at the embedded default
_OBJECT_STORE_BYTES = 100 * 2**20  # specifications and measurements are small


class ExecutionError(UserError):
    """Trials can't run. The message is one sentence that says what to do."""


def run(
    search: Search,
    make_spec: Callable[[Assignment], TrialSpec],
    preload: Sequence[str],
    earlier_rungs: Mapping[str, Sequence[Rung]],
    log: Path,
    say: Callable[[str], None],
    worker: type[TrialWorker] = TrialWorker,
) -> None:
    """Runs `search` until it has finished or has to end.

    Args:
      make_spec: from a trial that is due to what a worker is sent.
      preload: modules that candidates import, for the workers to import ahead of them.
      earlier_rungs: trial -> what was measured before this run, for the scheduler.
      log: file for what Ray has to say.
      say: tells the person what troubles a worker.
      worker: what runs the trials.

    Raises:
      ExecutionError: if the cluster can't be reached or has no room for one trial.
      Exception: what the search itself raised, e.g. `JournalError`. Trials in flight then stay unfinished.
    """
    settings = search.settings
    with _logging_to(log), _ray(settings.execution), tempfile.TemporaryDirectory(prefix="nas-tune-") as storage:
        resources = _resources(settings.execution)
        workers = _workers(settings.execution, resources)
        # Else Tune starts one worker at a time, and an autoscaler sees one trial that waits.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
        ask_tell = AskTell(
            search,
            make_spec,
            workers=workers,
            constants={
                "cpus": max(1, math.floor(settings.execution.cpus_per_trial)),
                "gpus": settings.execution.gpus_per_trial,
                "preload": list(preload),
                "sandbox": settings.sandbox.tier,
            },
            say=say,
        )
        tuner = tune.Tuner(
            tune.with_resources(worker, tune.PlacementGroupFactory([resources])),
            tune_config=tune.TuneConfig(
                search_alg=ask_tell,
                scheduler=_scheduler(settings, earlier_rungs),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"],
                trial_dirname_creator=lambda trial: f"{trial.config['trial']}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=storage,
                verbose=0,
                stop=EndOfSearch(ask_tell),
                callbacks=[Losses(ask_tell)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps its own
            ),
        )
        try:
            tuner.fit()
        finally:
            ask_tell.close()
    if ask_tell.failure is not None:
        raise ask_tell.failure


def _scheduler(settings: Settings, earlier_rungs: Mapping[str, Sequence[Rung]]) -> Any:
    if settings.scheduler.kind == "none":
        return None
    halving = Halving(settings.train.steps, rung_steps(settings)[0], settings.scheduler.reduction_factor)
    halving.refill(earlier_rungs)
    return halving


def _resources(settings: ExecutionSettings) -> dict[str, float]:
    """What one trial reserves."""
    wanted = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial, "TPU": settings.tpus_per_trial}
    return {kind: amount for kind, amount in wanted.items() if amount}


def _workers(settings: ExecutionSettings, resources: Mapping[str, float]) -> int:
    """Trials at a time: as many as the cluster has room for, no more than asked.

    Of a cluster that was joined, as many as asked: it may grow as trials wait for room.
    """
    if settings.address and settings.workers:
        return settings.workers
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    if settings.address is None:  # a trial of this machine is a Ray worker, a zygote and a training process
        in_memory = _trials_in_memory() * resources["CPU"]
        machines = [{**machine, "CPU": min(machine.get("CPU", 0), in_memory)} for machine in machines]
    room = sum(_room(machine, resources) for machine in machines)
    if room < 1:
        have = ", ".join(
            f"{max((machine.get(kind, 0) for machine in machines), default=0):g} {kind}" for kind in resources
        )
        wanted = ", ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
        raise ExecutionError(
            f"one trial needs {wanted} and no machine of the cluster has more than {have}: lower execution.*_per_trial"
        )
    return min(room, settings.workers or room)


def _room(machine: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Trials that one machine has room for. Each lies on one, and a fraction of a GPU on one GPU."""
    room = {kind: machine.get(kind, 0) / amount for kind, amount in resources.items()}
    if 0 < (share := resources.get("GPU", 0)) < 1:
        room["GPU"] = machine.get("GPU", 0) * math.floor(1 / share + 1e-9)
    return math.floor(min(room.values()) + 1e-9)


@contextmanager
def _logging_to(log: Path) -> Iterator[None]:
    """Ray's log lines and warnings in a file, not between the lines that a person reads."""
    handler = logging.FileHandler(log, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ray")
    others, propagate = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.handlers[:], logger.propagate = others, propagate
        handler.close()


@contextmanager
def _ray(settings: ExecutionSettings) -> Iterator[None]:
    """A connection to the cluster, or a Ray of our own on this machine, gone again at the end."""
    own = not ray.is_initialized()
    if own:
        asked_to_end = signal.getsignal(signal.SIGTERM)
        _connect(settings.address) if settings.address else start(_cpus_here())
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, asked_to_end)  # Ray's own would end the process at once
    try:
        yield
    finally:
        if own:
            ray.shutdown()


def _connect(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ExecutionError(f"Ray can't be reached at {address}: {error}") from error


def start(cpus: int) -> None:
    """A Ray of our own; again if it does not come up: it gives itself 30 s, which a busy machine can exceed."""
    options: dict[str, Any] = {
        "address": "local",  # else one that somebody has started here would be joined, or refused
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    attempts = Retrying(
        stop=stop_after_attempt(_STARTS),
        wait=wait_random(0, _PAUSE_SECONDS),  # of several that start at once none gets in the others' way again
        before_sleep=lambda _: ray.shutdown(),
        reraise=True,
    )
    try:
        attempts(ray.init, **options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of no class of its own
        ray.shutdown()
        raise ExecutionError(
            f"Ray did not start on this machine, {_STARTS} times: {printable(str(error))} Let it rest, then try again"
        ) from error


def _trials_in_memory() -> int:
    """Trials that this machine's free memory takes, with room to spare at the embedded default."""
    return max(1, int(psutil.virtual_memory().available / _BYTES_PER_TRIAL))


def _cpus_here() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
