"""A search sent to a real Ray: killed in the middle, sent once more by the command that was printed, and whole."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from test_end_to_end import NAS, TINY, events, trials, trials_so_far
from test_end_to_end import _whole_lines as whole_lines

pytestmark = pytest.mark.faults
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def surroundings(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def cluster(surroundings: dict[str, str]) -> Iterator[str]:
    """The dashboard of a Ray with ports and a folder of its own. `ray stop` would end every Ray of this machine."""
    folder = Path(tempfile.mkdtemp(prefix="nas-ray-"))  # short: sockets lie in it
    port, dashboard, client, agent, agent_grpc = free_ports(5)
    options = {
        "port": port,
        "node-ip-address": HERE,
        "dashboard-host": HERE,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "dashboard-agent-grpc-port": agent_grpc,
        "temp-dir": folder,
        "num-cpus": 2,
        "object-store-memory": 100 * 2**20,
    }
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    log = folder / "start.log"
    with log.open("w") as output:
        ray = subprocess.Popen(
            [*words, "--include-dashboard=true", *(f"--{name}={value}" for name, value in options.items())],
            stdout=output,
            stderr=output,
            env=surroundings,
            start_new_session=True,
        )
    family = [psutil.Process(ray.pid)]
    try:
        wait_until(lambda: answers(dashboard) or ray.poll() is not None, 120, "Ray's dashboard")
        assert ray.poll() is None, log.read_text()
        family += psutil.Process(ray.pid).children(recursive=True)
        yield f"http://{HERE}:{dashboard}"
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += psutil.Process(ray.pid).children(recursive=True)
        ray.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ray.wait(30)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HERE, 0))
        return [one.getsockname()[1] for one in sockets]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HERE, port)) == 0


def wait_until(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def nas(cluster: str, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    """Runs the command line in a folder where nothing of the project is."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).resolve().parents[1])
        inherited = os.pathsep.join(filter(None, [root, surroundings.get("PYTHONPATH")]))
        environment = {**surroundings, "PYTHONPATH": inherited}
        return subprocess.run(
            [*NAS, *words], capture_output=True, text=True, env=environment, cwd=elsewhere, timeout=400
        )

    return run


def submitted(nas, *words: str) -> dict[str, list[str]]:
    """Sends a search. The commands that were printed for afterwards, by their name."""
    sent = nas("submit", *words)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    commands = [line.rpartition("    ")[0] for line in sent.stdout.splitlines() if line.startswith("  nas ")]
    return {shlex.split(command)[1]: shlex.split(command)[1:] for command in commands}


def ended(nas, commands: dict[str, list[str]]) -> subprocess.CompletedProcess[str]:
    """What `nas status` says once a job is over."""
    deadline = time.monotonic() + 200
    while True:
        stands = nas(*commands["status"])
        if ": pending" not in stands.stdout and ": running" not in stands.stdout:
            return stands
        assert time.monotonic() < deadline, stands.stdout
        time.sleep(1)


def drivers_of(folder: Path) -> list[psutil.Process]:
    """The processes that run the search, not the shells that wait for them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            named = f"name={folder.name}" in words or f"resume={folder}" in words
            if "search" in words and named and Path(words[0]).name.startswith("python"):
                found.append(process)
    return found


def test_a_search_whose_driver_was_killed_is_sent_again_and_is_whole(nas, cluster, text, tmp_path):
    folder = tmp_path / "sent"
    words = ["cluster=ray_job", f"cluster.address={cluster}", f"cluster.python={sys.executable}"]
    more = ["search.trials=8", "name=sent", f"results_dir={tmp_path}", "tracking=none"]
    commands = submitted(nas, *words, *TINY, *text, *more)
    wait_until(lambda: trials_so_far(folder), 200, "a trial")
    (driver,) = drivers_of(folder)
    driver.kill()
    failed = ended(nas, commands)
    assert failed.returncode == 1 and ": failed (" in failed.stdout
    before = trials_so_far(folder)
    again = submitted(nas, *commands["submit"][1:])
    followed = nas(*again["logs"])
    assert followed.returncode == 0 and "Result" in followed.stdout, followed.stdout + followed.stderr
    stands = ended(nas, again)
    assert (stands.returncode, stands.stderr) == (0, "") and ": succeeded" in stands.stdout
    whole = events(folder)
    assert [event["event"] for event in whole].count("resume") == 1 and whole[-1]["reason"].startswith("trials")
    finished = [event["id"] for event in whole if event["event"] == "trial"]
    assert len(finished) == len(set(finished)), "a trial was run twice"
    assert all(trials(folder)[trial] == event for trial, event in before.items()), "a finished trial was lost"
    assert sum(event["purpose"] == "search" for event in trials(folder).values()) >= 8
    assert "class TokenMixer" in (folder / "best.py").read_text()


def test_a_job_that_is_stopped_closes_its_journal(nas, cluster, text, tmp_path):
    folder = tmp_path / "stopped"
    words = ["cluster=ray_job", f"cluster.address={cluster}", f"cluster.python={sys.executable}"]
    more = ["search.trials=50", "name=stopped", f"results_dir={tmp_path}", "tracking=none"]
    commands = submitted(nas, *words, *TINY, *text, *more)
    wait_until(lambda: len(whole_lines(folder)) >= 2, 200, "what is asked for first")
    stopped = nas(*commands["stop"])
    assert stopped.returncode == 0 and "was asked to stop" in stopped.stdout
    stands = ended(nas, commands)
    assert stands.returncode == 1 and ": stopped" in stands.stdout
    assert events(folder)[-1]["reason"] == "interrupted"
    assert not drivers_of(folder)


def test_what_ray_does_not_know_is_one_sentence(nas, cluster):
    unknown = nas("status", "ray_job/no-such-job", f"cluster.address={cluster}")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith(f"nas: Ray at {cluster} refused: ") and unknown.stderr.count("\n") == 1
