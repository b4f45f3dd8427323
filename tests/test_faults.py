"""What a cluster does to a search: workers and nodes lost, with notice and without, and MLflow away meanwhile.

Each search here is the same one, and ends with the very numbers of the one that nothing happened to.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from common import ROOT
from ray.cluster_utils import Cluster
from test_end_to_end import NAS, TINY, events, trials, trials_so_far
from test_end_to_end import _whole_lines as whole_lines
from test_submit_end_to_end import HERE, answers, free_ports

from nas import preemption
from nas.tracking.store import connect
from nas.train import complete_checkpoints

pytestmark = pytest.mark.faults
NAME = "nas.trial"  # tag of a run
LONG = [
    *TINY,
    *("train.steps=20000", "train.steps_per_dispatch=20", "scheduler=none"),
    *("search.trials=1", "search.confirm_seeds=0", "seed=3"),
]
Running = subprocess.Popen[str]


@contextlib.contextmanager
def searching(folder: Path, environment: dict[str, str], *more: str) -> Iterator[Running]:
    """A search under way; at the end it has ended well."""
    words = [*NAS, "search", *LONG, f"results_dir={folder.parent}", f"name={folder.name}", *more]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )
    try:
        yield process
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.kill()


def wait_until(condition: Callable[[], Any], process: Running, what: str, seconds: float = 200) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if process.poll() is not None:
            pytest.fail(f"the search ended before {what}: {process.communicate()[0]}")
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.1)
    return found


def rungs_so_far(folder: Path, trial: str) -> list[int]:
    found = map(json.loads, whole_lines(folder))
    return [event["step"] for event in found if event["event"] == "rung" and event["trial"] == trial]


def lost_so_far(folder: Path) -> list[tuple[str, str]]:
    found = map(json.loads, whole_lines(folder))
    return [(event["trial"], event["reason"]) for event in found if event["event"] == "lost"]


def worker_of(root: psutil.Process) -> psutil.Process | None:
    """The process that runs a trial, below this one."""
    return next((worker for worker in preemption.workers() if root in worker.parents()), None)


def bits(folder: Path) -> dict[str, float]:
    return {name: event["outcome"]["bits_per_byte"] for name, event in trials(folder).items()}


def whole(folder: Path) -> None:
    """Every trial that was asked for has ended, once."""
    kinds = [event["event"] for event in events(folder)]
    ended = [event["id"] for event in events(folder) if event["event"] == "trial"]
    assert kinds.count("ask") == len(ended) == len(set(ended))
    assert kinds[-1] == "end" and kinds.count("end") == 1
    steps = [(event["trial"], event["step"]) for event in events(folder) if event["event"] == "rung"]
    assert len(steps) == len(set(steps)), "a rung was counted twice"


@pytest.fixture(scope="module")
def undisturbed(environment: dict[str, str], text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    with searching(folder, environment, *text, "tracking=none"):
        pass
    assert not lost_so_far(folder) and len(bits(folder)) == 2
    return folder


def test_a_worker_that_is_killed_and_one_that_has_notice(undisturbed, environment, text, tmp_path):
    folder = tmp_path / "killed"
    with searching(folder, environment, *text, "tracking=none") as process:
        driver = psutil.Process(process.pid)
        wait_until(lambda: rungs_so_far(folder, "t0000"), process, "a rung")
        worker = wait_until(lambda: worker_of(driver), process, "a worker")
        contained = worker.children(recursive=True)
        worker.kill()
        wait_until(lambda: lost_so_far(folder), process, "word of the loss")
        assert psutil.wait_procs(contained, timeout=20)[1] == [], "what it contained went on without it"

        wait_until(lambda: rungs_so_far(folder, "t0001"), process, "a rung of the next trial")
        checkpoints = folder / "trials" / "t0001" / "train" / "checkpoints"
        told = subprocess.run([sys.executable, "-m", "nas.preemption", "30"], capture_output=True, text=True)
        assert told.stdout.startswith("1 trials were told"), told.stderr
        wait_until(lambda: len(lost_so_far(folder)) == 2, process, "word of the preemption")
        assert max(map(int, complete_checkpoints(checkpoints))) not in (5000, 10000, 20000), "it kept what it had"
    assert lost_so_far(folder) == [
        ("t0000", "its worker was lost"),
        ("t0001", "its machine is being taken away, with notice"),
    ]
    whole(folder)
    assert bits(folder) == bits(undisturbed)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without room for trials, and two machines with room for one each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    impatient = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": impatient})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a PostgreSQL of our own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        sentence = "there is no PostgreSQL here: apt-get install postgresql"
        pytest.fail(sentence) if "CI" in os.environ else pytest.skip(sentence)
    programs, folder, (port,) = found[-1].parent, Path(tempfile.mkdtemp(prefix="nas-pg-")), free_ports(1)
    as_other = []
    if os.geteuid() == 0:  # as whom it refuses to run
        shutil.chown(folder, "postgres")
        as_other = ["runuser", "-u", "postgres", "--"]
    options = f"-p {port} -k {folder} -c listen_addresses={HERE} -c fsync=off"

    def run(*words: str) -> None:
        subprocess.run([*as_other, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    run(str(programs / "initdb"), "-D", f"{folder}/data", "-U", "nas", "--auth=trust", "--no-sync")
    control = [str(programs / "pg_ctl"), "-D", f"{folder}/data", "-w"]
    run(*control, "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://nas@{HERE}:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def serving(database: str, artifacts: Path, port: int) -> Iterator[None]:
    """An MLflow server that keeps its records in the database."""
    words = ["-m", "mlflow", "server", "--host", HERE, "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
    with (artifacts.parent / "mlflow.log").open("a") as log:
        server = subprocess.Popen([sys.executable, *words, *stores], stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(1200):
            if answers(port):
                break
            assert server.poll() is None, (artifacts.parent / "mlflow.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_node_that_is_lost_while_mlflow_is_away(undisturbed, cluster, database, environment, text, tmp_path):
    folder, (port,) = tmp_path / "lost", free_ports(1)
    where = ["execution=ray", f"execution.address={cluster.address}"]
    tracked = ["tracking=mlflow", f"tracking.uri=http://{HERE}:{port}"]
    with contextlib.ExitStack() as server:
        server.enter_context(serving(database, tmp_path / "artifacts", port))
        with searching(folder, environment, *text, *where, *tracked) as process:
            wait_until(lambda: rungs_so_far(folder, "t0000"), process, "a rung")
            server.close()
            (node,) = [each for each in cluster.worker_nodes if worker_of(raylet_of(each))]
            cluster.remove_node(node, allow_graceful=False)
            wait_until(lambda: lost_so_far(folder), process, "word of the loss")
            wait_until(lambda: "t0000" in trials_so_far(folder), process, "the end of the trial")
            server.enter_context(serving(database, tmp_path / "artifacts", port))
        ((trial, how),) = lost_so_far(folder)
        assert trial == "t0000" and how in ("its node was lost", "its worker was lost"), "Ray may not know yet which"
        whole(folder)
        assert bits(folder) == bits(undisturbed)
        # What it said where MLflow was not back in time; else there is nothing to do.
        subprocess.run([*NAS, "search", f"resume={folder}"], check=True, env=environment, cwd=ROOT)
        client = connect(f"http://{HERE}:{port}")
        (experiment,) = [each for each in client.search_experiments() if each.name == "nas"]
        runs = client.search_runs([experiment.experiment_id])
        found = {run.data.tags[NAME]: run.data.metrics["bits_per_byte"] for run in runs if NAME in run.data.tags}
        assert found == pytest.approx(bits(folder)), "what MLflow missed was made good"


def raylet_of(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)
