"""What MLflow takes in a second: the events of a search written to a real store, one after the other.

A write here is what the writer applies at once: all that one event adds to one run, of up to four calls of the client.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError
from nas.journal import Event
from nas.tracking.projection import Projection
from nas.tracking.store import Store
from nas.tracking.tracker import be_quiet

_START_SECONDS = 120


@dataclass(frozen=True)
class Pace:
    """Of writes, in seconds each: from call to return, and of the writer's CPU."""

    writes: int
    seconds: float
    cpu: float


def pace(events: Sequence[Event], uri: str, artifacts: Path) -> Pace:
    """Writes all of them to `uri`. The first write, which loads the client and makes the tables, is not counted."""
    be_quiet()
    projection, store = Projection(), Store(uri, artifacts, "scaling")
    writes = [write for event in events for write in projection.writes(event)]
    store.apply(writes[0])
    began, cpu = time.perf_counter(), time.thread_time()
    for write in writes[1:]:
        store.apply(write)
    count = len(writes) - 1
    return Pace(count, (time.perf_counter() - began) / count, (time.thread_time() - cpu) / count)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of an MLflow server on SQLite in `folder`, with one process to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "served"),
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *stores], stdout=log, stderr=log, cwd=folder)
        try:
            _wait_for(uri, process)
            yield uri
        finally:
            process.terminate()
            process.wait()


def _wait_for(uri: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise UserError("an MLflow server did not start on this machine: let it rest, then try again")
