"""Where runs and traces are written: the only file that calls MLflow, beside `nas.tracking.registry`."""

import hashlib
import json
import logging
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from nas.tracking.views import view_tags
from nas.tracking.writes import COMPLETE, Search, Span, TraceWrite, Usage, Write

BATCH = 100  # MLflow takes no more parameters or tags in one call
SQLITE_SECONDS = 5.0  # to wait for another process's lock before it counts as a failure


class Store:
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
        self._search: Search | None = None
        self._runs: dict[str | None, str] = {}  # trial, or None for the search -> run id
        self._complete: set[str] = set()
        self._milestones: set[int] = set()
        self._ended_traces: set[str] = set()

    def runs(self, search: Search) -> dict[str, str]:
        """Trial -> run, of what is there of this search."""
        self._look_up(search)
        return {trial: run for trial, run in self._runs.items() if trial is not None}

    def attach(self, search: Search, path: Path) -> None:
        """Adds a file to the artifacts of the search's own run."""
        self._look_up(search)
        if None not in self._runs:
            self._create(Write(search, int(1000 * time.time()), run_name=search.name))
        self._client.log_artifact(self._runs[None], str(path))

    def _look_up(self, search: Search) -> None:
        if self._client is None:
            self._client = connect(self._uri)
        if self._search != search:
            self._load(search)

    def apply(self, write: Write | TraceWrite) -> None:
        self._look_up(write.search)
        if isinstance(write, TraceWrite):
            self._apply_trace(write)
        else:
            self._apply_run(write)

    def _apply_run(self, write: Write) -> None:
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

    def _apply_trace(self, write: TraceWrite) -> None:
        """Through the store's own calls: MLflow's tracing API has global state, and takes the times from its clock."""
        from mlflow.tracing.client import TracingClient

        assert self._experiment_id is not None
        identity = _trace_identity(self._experiment_id, write)
        trace_id, ended = f"tr-{identity:032x}", write.state != "IN_PROGRESS"
        if trace_id in self._ended_traces and not write.amends:
            return
        traces = TracingClient(self._uri)
        traces.start_trace(_trace_info(trace_id, self._experiment_id, write))
        if ended:
            known = write.trial in self._runs
            run_id = self._runs[write.trial] if known else self._create(_first_write(write))
            self._client.link_traces_to_run([trace_id], run_id)
        # Last: the span of the whole work gives its trace the final state, and a trace with one is complete.
        traces.log_spans(self._experiment_id, [_mlflow_span(identity, span) for span in write.spans])
        if ended:
            self._ended_traces.add(trace_id)

    def _load(self, search: Search) -> None:
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
            self._ended_traces = set(self._find_ended_traces(search))
        self._search = search

    def _create_experiment(self) -> str:
        root = self._artifact_root
        if isinstance(root, Path) or (root and "://" not in root):
            # A server keeps the artifacts of its clients; a path of this machine would mean nothing there.
            root = None if self._uri.startswith("http") else Path(root).absolute().as_uri()
        created: str = self._client.create_experiment(self._experiment, artifact_location=root, tags=view_tags())
        return created

    def _find(self, query: str) -> Iterable[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment_id], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _find_ended_traces(self, search: Search) -> Iterable[str]:
        query, token = f"tags.`nas.started` = '{search.started}'", None
        while True:
            page = self._client.search_traces(
                locations=[self._experiment_id],
                filter_string=query,
                max_results=500,
                page_token=token,
                include_spans=False,
            )
            for trace in page:
                if trace.info.tags.get("nas.search") == search.name and trace.info.state.value != "IN_PROGRESS":
                    yield trace.info.trace_id
            token = page.token
            if not token:
                return

    def _create(self, write: Write) -> str:
        tags = {"nas.search": write.search.name}
        if write.trial is None:
            tags["nas.started"] = write.search.started
        else:
            if None not in self._runs:
                self._create(Write(write.search, write.time_ms, run_name=write.search.name))
            tags |= {"nas.trial": write.trial, "mlflow.parentRunId": self._runs[None]}
        run = self._client.create_run(
            self._experiment_id, start_time=write.time_ms, tags=tags, run_name=write.run_name or write.trial
        )
        run_id: str = run.info.run_id
        self._runs[write.trial] = run_id
        return run_id

    def _log_batches(self, run_id: str, write: Write) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = [RunTag(key, value) for key, value in write.tags.items()]
        if write.run_name:  # a run that its rungs made has no name yet
            tags.append(RunTag("mlflow.runName", write.run_name))
        params = [Param(key, value) for key, value in write.params.items()]
        metrics = [Metric(*metric) for metric in write.metrics]
        while tags or params or metrics:
            self._client.log_batch(run_id, metrics=metrics[:BATCH], params=params[:BATCH], tags=tags[:BATCH])
            tags, params, metrics = tags[BATCH:], params[BATCH:], metrics[BATCH:]


def _trace_identity(experiment_id: str, write: TraceWrite) -> int:
    """The same for the same work, so that a trace is never written beside itself."""
    parts = [experiment_id, write.search.name, write.search.started, write.work]
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32], 16)


def _first_write(write: TraceWrite) -> Write:
    """To a run that is to be linked to a trace, and is gone."""
    return Write(write.search, write.start_ns // 1_000_000, write.trial, write.trial or write.search.name)


def _trace_info(trace_id: str, experiment_id: str, write: TraceWrite) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    return TraceInfo(
        trace_id,
        TraceLocation.from_experiment_id(experiment_id),
        request_time=write.start_ns // 1_000_000,
        state=TraceState(write.state if write.amends else "IN_PROGRESS"),
        request_preview=write.request,
        response_preview=write.response,
        execution_duration=(write.end_ns - write.start_ns) // 1_000_000,
        # Of the whole work: what stands here is not summed up again over the spans.
        trace_metadata={
            TraceMetadataKey.TOKEN_USAGE: json.dumps(_tokens(write.usage)),
            TraceMetadataKey.COST: json.dumps(_cost(write.usage)),
        },
        tags={
            **write.tags,
            TraceTagKey.TRACE_NAME: write.name,
            "nas.search": write.search.name,
            "nas.started": write.search.started,
        },
    )


def _mlflow_span(trace: int, span: Span) -> Any:
    """`span` as MLflow stores it: attributes are JSON text, and the whole work is the parent of its calls."""
    from mlflow.entities import Span as MlflowSpan
    from mlflow.entities import SpanType
    from mlflow.tracing.constant import SpanAttributeKey
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode

    whole, part = (SpanContext(trace, number + 1, is_remote=False) for number in (0, span.number))
    attributes = {
        SpanAttributeKey.REQUEST_ID: f"tr-{trace:032x}",
        SpanAttributeKey.SPAN_TYPE: SpanType.CHAT_MODEL if span.number else SpanType.AGENT,
        SpanAttributeKey.INPUTS: span.inputs,
        SpanAttributeKey.OUTPUTS: span.outputs,
        **span.attributes,
    }
    if span.number:
        attributes |= {
            SpanAttributeKey.MODEL: span.model,
            SpanAttributeKey.CHAT_USAGE: _tokens(span.usage),
            SpanAttributeKey.LLM_COST: _cost(span.usage),
        }
    return MlflowSpan(
        ReadableSpan(
            span.name,
            part,
            parent=whole if span.number else None,
            resource=Resource.get_empty(),
            attributes={key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
            status=Status(StatusCode.OK) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )
    )


def _tokens(usage: Usage) -> dict[str, int]:
    """As MLflow's columns read it."""
    total = usage.tokens_in + usage.tokens_out
    return {"input_tokens": usage.tokens_in, "output_tokens": usage.tokens_out, "total_tokens": total}


def _cost(usage: Usage) -> dict[str, float]:
    return {"total_cost": usage.dollars}


def connect(uri: str) -> Any:
    if uri.startswith("sqlite:///"):
        _check_sqlite(uri.removeprefix("sqlite:///"))
    from mlflow import MlflowClient  # here: 1.6 s, and in the writer's thread

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_sqlite(path: str) -> None:
    """Fails at once where MLflow itself would try for 100 s to open the file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=SQLITE_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def refused(error: Exception) -> bool:
    """Whether trying again cannot help: the fault is in what is written, not in the store."""
    refusals = {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"}
    return getattr(error, "error_code", None) in refusals or isinstance(error, TypeError | ValueError | LookupError)


def in_words(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}"[:200]
