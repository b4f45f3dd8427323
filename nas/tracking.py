"""From journal events to MLflow, in the background. The only importer of MLflow.

The journal is the truth and MLflow a copy of it for reading. So a write is never waited for, a failure never reaches
the search, and whatever is missing is made good by writing the same events again.

An event passes three parts: `_Projection` (pure: event -> what is to be written), `_Store` (finds or creates the run
and writes; writing twice changes nothing) and `MlflowTracker` (queue, thread, retries).
"""

import difflib
import json
import logging
import math
import os
import queue
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Event = Mapping[str, Any]

PARAM_CHARACTERS = 500
TAG_CHARACTERS = 7_900  # MLflow cuts at 8,000, in the middle of whatever stands there
BATCH = 100  # MLflow takes no more parameters or tags in one call
SLOWEST_RETRY_SECONDS = 30.0
SQLITE_SECONDS = 5.0  # to wait for another process's lock before it counts as a failure
TRIES_AFTER_CLOSE = 3

# Rejected is a result, the gate's, and as complete as a score; red is kept for runs whose training broke. What is held
# is complete too: a person's decision amends it.
STATUS = {"fitness": "FINISHED", "rejected": "FINISHED", "crashed": "FAILED", "held": "FINISHED"}
COMPLETE = frozenset(STATUS.values())

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
        for name, value in _QUIET.items():  # in the caller's thread: setenv beside another thread's getenv can crash
            os.environ.setdefault(name, value)
        self._where = re.sub(r"//[^/@]*@", "//", uri)  # without a password
        self._how_to_rebuild = how_to_rebuild
        self._projection = _Projection()
        self._store = _Store(uri, artifact_root, experiment)
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
                self._warn(f"The event {str(event)[:60]!r} cannot be written to MLflow ({_in_words(error)})")
                continue
            lost = [write for write in writes if not self._write_patiently(write)]
            self._written += not lost

    def _write_patiently(self, write: "_Write") -> bool:
        """Tries until it is written, MLflow refuses it for good, or the tracker is closed and the store still down."""
        tries, delay = 0, 0.5
        while not self._abandoned.is_set():
            try:
                self._store.apply(write)
                return True
            except Exception as error:
                tries += 1
                self._store.forget()
                self._warn(f"MLflow at {self._where} cannot be written ({_in_words(error)})")
                if _refused(error) and tries > 1:  # once more after `forget`: the run may have been deleted meanwhile
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


def rebuild(
    events: Iterable[Event], uri: str, artifact_root: str | Path | None, experiment: str, timeout: float | None = None
) -> int:
    """Writes a journal's events to MLflow; what is there already stays as it is. Returns how many were not written."""
    tracker = MlflowTracker(uri, artifact_root, experiment)
    for event in events:
        tracker.write(event)
    return tracker.close(timeout)


# --- what is to be written: pure ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """Which search: its name and its start, so that a later search of the same name has a run of its own."""

    name: str
    started: str


@dataclass(frozen=True)
class _Write:
    """An addition to one run, which is created if need be. Applying it twice is applying it once.

    Attributes:
      trial: whose run, or None for the search's own.
      metrics: (name, value, time in ms, step).
      milestone: the search's finished trials, if the metrics are those after that many.
      status: of the run from now on; None leaves it.
      amends: whether it is for a run that is complete; others are not written there.
    """

    search: _Search
    time_ms: int
    trial: str | None = None
    run_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[tuple[str, float, int, int], ...] = ()
    milestone: int | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    amends: bool = False


class _Projection:
    """From the events so far to the next writes. The same events give the same writes, times included."""

    def __init__(self) -> None:
        self._handlers: dict[Any, Callable[[Event], list[_Write]]] = {
            "ask": self._ask,
            "rung": self._rung,
            "trial": self._trial,
            "notice": self._notice,
            "review": self._review,
            "resume": self._resume,
            "end": self._end,
        }
        self._search: _Search | None = None
        self._time_ms = 0

    def writes(self, event: Event) -> list[_Write]:
        """What `event` adds; nothing for an event that is not known here."""
        kind = event.get("event")
        time = _number(event.get("time"))
        self._time_ms = self._time_ms if time is None else int(1000 * time)
        if kind == "search":
            return self._begin(event)
        if self._search is None or not isinstance(kind, str) or kind not in self._handlers:
            return []
        return self._handlers[kind](event)

    def _begin(self, event: Event) -> list[_Write]:
        time = _number(event.get("time"))
        self._search = _Search(_clean(event.get("name", "search"))[:200], "unknown" if time is None else f"{time:.3f}")
        self._sources: dict[str, str] = {}
        self._open: dict[str, None] = {}  # asked and not finished; ordered, so that the same events write the same
        self._killed: set[str] = set()
        self._rung_times: dict[str, dict[int, int]] = {}
        self._counts = {"trained": 0, "rejected": 0, "crashed": 0, "held": 0}
        # Held trials that no person has decided on, and what is to be written if they are accepted.
        self._waiting: dict[str, tuple[Event, _Write]] = {}
        self._best: float | None = None
        self._weights: dict[str, float] = {}
        corpus = _mapping(event.get("corpus"))
        versions = {f"version.{name}": value for name, value in _mapping(event.get("versions")).items()}
        description = (
            f"**Search** {_escape(self._search.name)}, seed {_escape(event.get('seed'))}, "
            f"corpus {_escape(corpus.get('name'))} (`{_clean(corpus.get('sha256'))[:12].replace('`', '')}`).\n\n"
            "The runs below it are its candidates. Steps of this run's metrics count finished trials."
        )
        config = _flatten(_mapping(event.get("config")))
        return [
            self._write(
                run_name=self._search.name,
                params={key: value[:PARAM_CHARACTERS] for key, value in config.items()},
                tags=_tags(
                    {
                        "seed": event.get("seed"),
                        "corpus": corpus.get("name"),
                        "corpus.sha256": corpus.get("sha256"),
                        **versions,
                        "mlflow.note.content": description,
                    }
                ),
                artifacts={"search.json": _json(event)},
            )
        ]

    def _ask(self, event: Event) -> list[_Write]:
        trial = _clean(event.get("trial"))
        if not trial:
            return []
        self._weights = _numbers(event.get("weights")) or self._weights
        self._open[trial] = None
        self._killed.discard(trial)
        candidate = _mapping(event.get("candidate"))
        probability = _number(event.get("probability"))
        return [
            self._candidate_write(
                trial,
                candidate,
                tags={
                    "outcome": "running",
                    "purpose": event.get("purpose"),
                    "mlflow.note.content": _describe(candidate, {}, {}),
                },
                metrics=[] if probability is None else [("probability", probability, self._time_ms, 0)],
                status="RUNNING",
            )
        ]

    def _rung(self, event: Event) -> list[_Write]:
        trial, step = _clean(event.get("trial")), _number(event.get("step"))
        if not trial or step is None:
            return []
        times = self._rung_times.setdefault(trial, {})
        if int(step) in times:  # a trial that is run again after a crash reports its rungs again
            return []
        times[int(step)] = self._time_ms
        status = "RUNNING" if trial in self._killed else None
        self._killed.discard(trial)
        bits = _number(event.get("bits_per_byte"))
        # Not yet "bits_per_byte": a trial that crashes later must not stand among the scores.
        metrics = () if bits is None else (("rung_bits_per_byte", bits, self._time_ms, int(step)),)
        return [self._write(trial=trial, metrics=metrics, status=status)]

    def _trial(self, event: Event) -> list[_Write]:
        trial = _clean(event.get("id"))
        outcome = _outcome(event)
        if not trial or not outcome:
            return []
        kind = outcome["kind"]
        self._open.pop(trial, None)
        self._killed.discard(trial)
        self._count("trained" if kind == "fitness" else kind, event, outcome)
        writes = [self._finished_candidate(trial, event, outcome), self._progress(event)]
        if kind == "held":
            fitness = {"kind": "fitness", **_mapping(outcome.get("fitness"))}
            accepted = self._finished_candidate(trial, {**event, "outcome": fitness}, fitness)
            self._waiting[trial] = (event, replace(accepted, amends=True))
            writes.append(self._waiting_count())
        self._rung_times.pop(trial, None)
        return writes

    def _count(self, kind: str, event: Event, outcome: Mapping[str, Any]) -> None:
        self._counts[kind] += 1
        bits = _number(outcome.get("bits_per_byte")) if kind == "trained" else None
        # A confirmation is of a candidate that was counted already, at a fresh seed.
        if bits is not None and event.get("purpose") != "confirm":
            self._best = bits if self._best is None else min(self._best, bits)

    def _notice(self, event: Event) -> list[_Write]:
        return [self._write(tags=_tags({f"notice.{_clean(event.get('tripwire'))}": event.get("reason")}))]

    def _review(self, event: Event) -> list[_Write]:
        """A person has decided on a held trial: accepted, its numbers become a score's."""
        trial = _clean(event.get("trial"))
        if trial not in self._waiting:
            return []
        held, accepted = self._waiting.pop(trial)
        decision = _tags(
            {"review": event.get("decision"), "review.by": event.get("by"), "review.why": event.get("why")}
        )
        if event.get("decision") != "accept":
            return [self._write(trial=trial, tags=decision, amends=True), self._waiting_count()]
        self._counts["held"] -= 1
        self._count("trained", held, _mapping(_mapping(held.get("outcome")).get("fitness")))
        return [
            replace(accepted, tags={**accepted.tags, **decision}),
            self._waiting_count(),
            replace(self._progress({}), milestone=None),
        ]

    def _waiting_count(self) -> _Write:
        return self._write(tags=_tags({"waiting": len(self._waiting)}))

    def _finished_candidate(self, trial: str, event: Event, outcome: Mapping[str, Any]) -> _Write:
        kind = outcome["kind"]
        candidate, certificate = _mapping(event.get("candidate")), _mapping(event.get("certificate"))
        budget, cost = _mapping(event.get("budget")), _mapping(event.get("cost"))
        rung_times = self._rung_times.get(trial, {})
        values = {**cost, "gain": event.get("gain"), "state_bytes": certificate.get("state_bytes")}
        curve: dict[int, float] = {}
        fitness = _mapping(outcome.get("fitness")) if kind == "held" else {}
        last = int(_number({**outcome, **fitness}.get("step")) or 0)
        if kind == "fitness":
            values |= _measured(outcome)
            for rung in [*_mappings(event.get("rungs")), {"step": last, "bits_per_byte": outcome.get("bits_per_byte")}]:
                step, bits = _number(rung.get("step")), _number(rung.get("bits_per_byte"))
                if step is not None and bits is not None:
                    curve[int(step)] = bits
        metrics = [("bits_per_byte", bits, rung_times.get(step, self._time_ms), step) for step, bits in curve.items()]
        metrics += [(_key(name), value, self._time_ms, last) for name, value in _numbers(values).items()]
        if kind == "held":  # under names of their own: nothing that ranks runs finds them
            seen = _numbers({**_measured(fitness), "bits_per_byte": fitness.get("bits_per_byte")})
            metrics += [(f"held/{_key(name)}", value, self._time_ms, last) for name, value in seen.items()]
        artifacts = {"certificate.json": _json(certificate)} if certificate else {}
        if outcome.get("reason"):
            artifacts["reason.txt"] = _clean(outcome["reason"])
        return self._candidate_write(
            trial,
            candidate,
            tags={
                "outcome": kind,
                "purpose": event.get("purpose"),
                "corpus.sha256": event.get("corpus"),
                "stopped": "true" if event.get("stopped") else "false",
                "rejected.check": outcome.get("check") if kind == "rejected" else None,
                "crashed.cause": outcome.get("cause") if kind == "crashed" else None,
                "tripwire": outcome.get("tripwire") if kind == "held" else None,
                "mlflow.note.content": _describe(candidate, {**outcome, "stopped": event.get("stopped")}, certificate),
            },
            params={
                "operator": candidate.get("operator"),
                "parents": _join(candidate.get("parents")),
                "proposer": candidate.get("proposer"),
                "seed": budget.get("seed"),
                "steps": budget.get("steps"),
            },
            metrics=metrics,
            artifacts=artifacts,
            status=STATUS[kind],
        )

    def _progress(self, event: Event) -> _Write:
        """The search's own metrics after one more finished trial."""
        finished = sum(self._counts.values())
        credit = _mapping(event.get("credit"))
        values = {
            **self._counts,
            "in_flight": len(self._open),
            "best_bits_per_byte": self._best,
            **{f"weight.{name}": weight for name, weight in self._weights.items()},
            **{f"reward.{name}": _mapping(arm).get("reward") for name, arm in credit.items()},
        }
        metrics = tuple((_key(name), value, self._time_ms, finished) for name, value in _numbers(values).items())
        return self._write(metrics=metrics, milestone=finished)

    def _resume(self, event: Event) -> list[_Write]:
        return [self._write(status="RUNNING")]

    def _end(self, event: Event) -> list[_Write]:
        self._killed = set(self._open)
        summary = _clean(event.get("summary"))
        tags = _tags({"end.reason": event.get("reason"), "best": event.get("best")})
        if summary:
            tags["mlflow.note.content"] = _cut(summary, "\n\n(cut: the whole is in summary.md)")
        return [
            *(self._write(trial=trial, status="KILLED") for trial in self._open),
            self._write(tags=tags, artifacts={"summary.md": summary} if summary else {}, status="FINISHED"),
        ]

    def _candidate_write(
        self,
        trial: str,
        candidate: Mapping[str, Any],
        *,
        tags: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        artifacts: Mapping[str, str] | None = None,
        status: str,
    ) -> _Write:
        identity, operator = _clean(candidate.get("id")), _clean(candidate.get("operator"))
        source, parents = candidate.get("source"), candidate.get("parents") or ()
        code: dict[str, str] = {}
        if isinstance(source, str):
            code["candidate.py"] = _encodable(source)
            self._sources[identity] = source
            first = _clean(parents[0]) if isinstance(parents, list | tuple) and parents else None
            if first in self._sources:
                code["parent.diff"] = _diff(self._sources[first], source, first, identity)
        return self._write(
            trial=trial,
            run_name=" ".join(filter(None, [trial, operator, _clean(candidate.get("name")), identity]))[:200],
            tags=_tags(
                {
                    "operator": operator,
                    "parents": _join(parents),
                    "proposer": candidate.get("proposer"),
                    "candidate": identity,
                    **tags,
                }
            ),
            params={name: _clean(value)[:PARAM_CHARACTERS] for name, value in (params or {}).items()},
            metrics=tuple(metrics),
            artifacts={**code, **(artifacts or {})},
            status=status,
        )

    def _write(self, **fields: Any) -> _Write:
        assert self._search is not None
        return _Write(self._search, self._time_ms, **fields)


# --- where it is written -----------------------------------------------------------------------------------------


class _Store:
    """Applies writes with MLflow's client. Raises whatever MLflow raises; after that, `forget` and apply again."""

    def __init__(self, uri: str, artifact_root: str | Path | None, experiment: str) -> None:
        self._uri = uri
        self._artifact_root = artifact_root
        self._experiment = experiment
        self._client: Any = None
        self.forget()

    def forget(self) -> None:
        """Drops what was known of the store: a failed call may or may not have arrived."""
        self._experiment_id: str | None = None
        self._search: _Search | None = None
        self._runs: dict[str | None, str] = {}  # trial, or None for the search -> run id
        self._complete: set[str] = set()
        self._milestones: set[int] = set()

    def apply(self, write: _Write) -> None:
        if self._client is None:
            self._client = _connect(self._uri)
        if self._search != write.search:
            self._load(write.search)
        done = write.trial in self._complete and not write.amends
        if done or (write.milestone is not None and write.milestone in self._milestones):
            return
        known = write.trial in self._runs
        run_id = self._runs[write.trial] if known else self._create(write)
        self._log_batches(run_id, write)
        if write.artifacts:
            with tempfile.TemporaryDirectory(prefix="nas-mlflow-") as folder:
                for name, text in write.artifacts.items():
                    (Path(folder) / name).write_text(text, encoding="utf-8")
                self._client.log_artifacts(run_id, folder)
        # The status comes last: a run with a final one is complete.
        if write.status == "RUNNING":
            if known:
                self._client.update_run(run_id, status="RUNNING")
        elif write.status:
            self._client.set_terminated(run_id, write.status, end_time=write.time_ms)
        if write.milestone is not None:
            self._milestones.add(write.milestone)
        if write.trial is not None and write.status in COMPLETE:
            self._complete.add(write.trial)

    def _load(self, search: _Search) -> None:
        """Looks up what an earlier tracker has written of this search."""
        self.forget()
        found = self._client.get_experiment_by_name(self._experiment)
        self._experiment_id = found.experiment_id if found else self._create_experiment()
        for run in self._find(f"tags.`nas.started` = '{search.started}'"):
            if run.data.tags.get("nas.search") == search.name:
                self._runs[None] = run.info.run_id
        if None in self._runs:
            history = self._client.get_metric_history(self._runs[None], "trained")
            self._milestones = {point.step for point in history}
            for run in self._find(f"tags.`mlflow.parentRunId` = '{self._runs[None]}'"):
                if trial := run.data.tags.get("nas.trial"):
                    self._runs[trial] = run.info.run_id
                    if run.info.status in COMPLETE:
                        self._complete.add(trial)
        self._search = search

    def _create_experiment(self) -> str:
        root = self._artifact_root
        if isinstance(root, Path) or (root and "://" not in root):
            # A server keeps the artifacts of its clients; a path of this machine would mean nothing there.
            root = None if self._uri.startswith("http") else Path(root).absolute().as_uri()
        created: str = self._client.create_experiment(self._experiment, artifact_location=root)
        return created

    def _find(self, query: str) -> Iterable[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, write: _Write) -> str:
        tags = {"nas.search": write.search.name}
        if write.trial is None:
            tags["nas.started"] = write.search.started
        else:
            if None not in self._runs:
                self._create(_Write(write.search, write.time_ms, run_name=write.search.name))
            tags |= {"nas.trial": write.trial, "mlflow.parentRunId": self._runs[None]}
        run = self._client.create_run(
            self._experiment_id, start_time=write.time_ms, tags=tags, run_name=write.run_name or write.trial
        )
        run_id: str = run.info.run_id
        self._runs[write.trial] = run_id
        return run_id

    def _log_batches(self, run_id: str, write: _Write) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = [RunTag(key, value) for key, value in write.tags.items()]
        if write.run_name:  # a run that its rungs made has no name yet
            tags.append(RunTag("mlflow.runName", write.run_name))
        params = [Param(key, value) for key, value in write.params.items()]
        metrics = [Metric(*metric) for metric in write.metrics]
        while tags or params or metrics:
            self._client.log_batch(run_id, metrics=metrics[:BATCH], params=params[:BATCH], tags=tags[:BATCH])
            tags, params, metrics = tags[BATCH:], params[BATCH:], metrics[BATCH:]


def _connect(uri: str) -> Any:
    if uri.startswith("sqlite:///"):
        _check_sqlite(uri.removeprefix("sqlite:///"))
    from mlflow import MlflowClient  # here: 1.6 s, and in the writer's thread

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _check_sqlite(path: str) -> None:
    """Fails at once where MLflow itself would try for 100 s to open the file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=SQLITE_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _refused(error: Exception) -> bool:
    """Whether trying again cannot help: the fault is in what is written, not in the store."""
    refusals = {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"}
    return getattr(error, "error_code", None) in refusals or isinstance(error, TypeError | ValueError | LookupError)


def _in_words(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"[:200]


# --- text and numbers --------------------------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _outcome(event: Event) -> Mapping[str, Any]:
    """The outcome of a trial event, or nothing if it is of no known kind."""
    outcome = _mapping(event.get("outcome"))
    return outcome if outcome.get("kind") in tuple(STATUS) else {}


def _measured(fitness: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured once, beside the curve of bits per byte."""
    names = (
        *("score", "stderr", "held_out_bits_per_byte", "held_out_stderr"),
        *("tokens_per_second", "peak_bytes", "flops_per_token", "params"),
    )
    probes = _mapping(fitness.get("probes"))
    return {name: fitness.get(name) for name in names} | {f"probe.{name}": value for name, value in probes.items()}


def _number(value: Any) -> float | None:
    """`value` as a finite float, or None: what is not a number is never a metric."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _numbers(values: Any) -> dict[str, float]:
    pairs = ((str(name), _number(value)) for name, value in _mapping(values).items())
    return {name: number for name, number in pairs if number is not None}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _clean(value: Any) -> str:
    """`value` as text without control characters, terminal escapes and lone surrogates; None is empty."""
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return re.sub(r"[^\n\t -~\xa0-\U0010ffff]", "", _encodable(text.replace("\r\n", "\n")))


def _json(value: Any) -> str:
    return _encodable(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _join(values: Any) -> str:
    return ", ".join(_clean(value) for value in values) if isinstance(values, list | tuple) else ""


def _key(name: str) -> str:
    """`name` as MLflow takes it for a metric or parameter."""
    return re.sub(r"[^\w.\- ]", "_", name)[:250].strip() if name.strip(". ") else "_"


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested config to dotted keys; a list stays one value."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            flat[_key(f"{prefix}{name}")] = _clean(text)
    return flat


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    return {_key(name): _cut(_clean(value)) for name, value in values.items() if value is not None}


def _cut(text: str, note: str = " (cut)") -> str:
    return text if len(text) <= TAG_CHARACTERS else text[: TAG_CHARACTERS - len(note)] + note


def _escape(value: Any) -> str:
    """Text that Markdown shows as it is, in one line: no markup, links, images, mentions or table cells of its own.

    Entities rather than backslashes: MLflow's renderer (Showdown, which lets `img` and `iframe` pass) leaves the
    backslash standing before half of the punctuation.
    """
    text = re.sub(r"[&<>`*_{}\[\]#~|!\\@:$\"]", lambda match: f"&#{ord(match[0])};", _clean(value))
    return " ".join(text.replace("www.", "www&#46;").split())


def _fence(text: str) -> str:
    """A code block that `text` cannot end."""
    longest = max((len(run) for run in re.findall(r"`+|~+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{text}\n{ticks}"


def _diff(old: str, new: str, old_name: str | None, new_name: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"{old_name}.py", f"{new_name}.py", lineterm="")
    return _encodable("\n".join(lines) + "\n")


def _describe(candidate: Mapping[str, Any], outcome: Mapping[str, Any], certificate: Mapping[str, Any]) -> str:
    """A candidate's run in Markdown. Whatever the candidate's author wrote is shown as text."""
    motivation = _clean(candidate.get("motivation"))[:600]
    sections = [f"**Motivation:** {_escape(motivation)}"] if motivation else []
    sections += _outcome_in_words(outcome)
    if certificate:
        rows = [(name, certificate.get(name)) for name in ("flops_per_token", "params", "state_bytes", "fingerprint")]
        rows += [(f"growth of {name}", value) for name, value in _mapping(certificate.get("exponents")).items()]
        rows += list(_mapping(certificate.get("checks")).items())
        cells = [f"| {_escape(name)} | {_escape(_clean(value)[:300])} |" for name, value in rows if value is not None]
        table = "\n".join(["**Certificate**", "", "| check | seen |", "| --- | --- |", *cells])
        fits = sum(map(len, sections)) + len(table) < TAG_CHARACTERS - 100
        sections.append(table if fits else "**Certificate:** in certificate.json")
    return _cut("\n\n".join(sections) or "No motivation was given.")


def _short(value: Any) -> Any:
    """A measured number with the digits that mean something."""
    return f"{value:.4f}" if isinstance(value, float) else value


def _outcome_in_words(outcome: Mapping[str, Any]) -> list[str]:
    kind = outcome.get("kind")
    if kind is None:
        return ["**Outcome:** not known yet"]
    if kind == "fitness":
        early = ", stopped early by the scheduler" if outcome.get("stopped") else ""
        return [f"**Outcome:** trained to {_score_in_words(outcome)}{early}"]
    reason = _clean(outcome.get("reason"))
    words = f"rejected by the gate's check {_escape(outcome.get('check'))}"
    if kind == "crashed":
        words = f"crashed: {_escape(outcome.get('cause'))}"
    if kind == "held":
        measured = _score_in_words(_mapping(outcome.get("fitness")))
        words = f"held ({_escape(outcome.get('tripwire'))}), and no score until a person accepts it: {measured}"
    if len(reason) > 2_500:  # a traceback says what matters at its end
        reason = "(cut: the whole is in reason.txt)\n..." + reason[-2_400:]
    return [f"**Outcome:** {words}", *([_fence(reason)] if reason else [])]


def _score_in_words(fitness: Mapping[str, Any]) -> str:
    bits, error = (_escape(_short(fitness.get(name))) for name in ("bits_per_byte", "stderr"))
    words = f"{bits} (standard error {error}) bits per byte in {_escape(fitness.get('step'))} steps"
    held_out = fitness.get("held_out_bits_per_byte")
    return words if held_out is None else f"{words}, {_escape(_short(held_out))} on held-out bytes"
