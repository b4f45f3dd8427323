"""The writer's side: queue, thread and retries."""

import logging
import os
import queue
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from nas.tracking.projection import Projection
from nas.tracking.store import Store, in_words, refused
from nas.tracking.writes import Event, TraceWrite, Write

log = logging.getLogger(__name__)

SLOWEST_RETRY_SECONDS = 30.0
TRIES_AFTER_CLOSE = 3

_LAST: Event = {}  # by identity: what ends the queue

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the tracker retries itself, and looks first what has arrived
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MlflowTracker:
    """Writes journal events to MLflow from one background thread. No method raises because of MLflow.

    Args:
      uri: of the store, e.g. "sqlite:////absolute/path/mlflow.db" or "http://host:5000".
      artifact_root: folder or URI of the artifacts of a new experiment. A server at an http(s) `uri` keeps them itself.
      experiment: name of the MLflow experiment; made if there is none.
      how_to_rebuild: what `close` tells a person to do about events that were not written.
    """

    def __init__(
        self,
        uri: str,
        artifact_root: str | Path | None,
        experiment: str,
        *,
        how_to_rebuild: str = "nas.tracking.rebuild with the journal's events writes what is missing",
    ) -> None:
        be_quiet()
        self._where = without_password(uri)
        self._how_to_rebuild = how_to_rebuild
        self._projection = Projection()
        self._store = Store(uri, artifact_root, experiment)
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._accepted = 0
        self._written = 0
        self._warned = False
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        # A daemon: a store that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Queues one journal event, which must not change afterwards, and returns at once."""
        self._accepted += 1
        self._queue.put(event)

    def close(self, timeout: float | None = 60.0) -> int:
        """Waits up to `timeout` seconds until all is written. Returns how many events were not, and says so."""
        if not self._closing.is_set():
            self._closing.set()
            self._queue.put(_LAST)
        self._thread.join(timeout)
        self._abandoned.set()
        missing = self._accepted - self._written
        if missing:
            log.warning(
                "%d of %d events were not written to MLflow at %s; the journal has them all: %s.",
                missing, self._accepted, self._where, self._how_to_rebuild,
            )  # fmt: skip
        return missing

    def _work(self) -> None:
        while not self._abandoned.is_set() and (event := self._queue.get()) is not _LAST:
            try:
                writes = self._projection.writes(event)
            except Exception as error:  # a damaged event costs itself alone
                self._warn(f"The event {str(event)[:60]!r} cannot be written to MLflow ({in_words(error)})")
                continue
            lost = [write for write in writes if not self._write_patiently(write)]
            self._written += not lost

    def _write_patiently(self, write: Write | TraceWrite) -> bool:
        """Tries until it is written, MLflow refuses it for good, or the tracker is closed and the store still down."""
        tries, delay = 0, 0.5
        while not self._abandoned.is_set():
            try:
                self._store.apply(write)
                return True
            except Exception as error:
                tries += 1
                self._store.forget()
                self._warn(f"MLflow at {self._where} cannot be written ({in_words(error)})")
                if refused(error) and tries > 1:  # once more after `forget`: the run may have been deleted meanwhile
                    return False
            if not self._closing.is_set():
                self._closing.wait(delay)
                delay, tries = min(2 * delay, SLOWEST_RETRY_SECONDS), min(tries, 1)
            elif tries > TRIES_AFTER_CLOSE:
                self._abandoned.set()
            else:
                self._abandoned.wait(0.5)
        return False

    def _warn(self, trouble: str) -> None:
        """Once, however much goes wrong: the search's own output is what a person came to see."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        log.log(level, "%s; the search goes on, the journal keeps everything, and writing is tried again.", trouble)


def be_quiet() -> None:
    """Settles how MLflow's client behaves in this process, where the environment does not say otherwise."""
    for name, value in _QUIET.items():  # in the caller's thread: setenv beside another thread's getenv can crash
        os.environ.setdefault(name, value)


def without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def rebuild(
    events: Iterable[Event], uri: str, artifact_root: str | Path | None, experiment: str, timeout: float | None = None
) -> int:
    """Writes a journal's events to MLflow; what is there already stays as it is. Returns how many were not written."""
    tracker = MlflowTracker(uri, artifact_root, experiment)
    for event in events:
        tracker.write(event)
    return tracker.close(timeout)
