"""Ray's Jobs API: a command that runs on a cluster's head, with the files it needs."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import requests
from ray.job_submission import JobSubmissionClient

from nas.errors import UserError
from nas.terminal import printable

_AGENT_SECONDS = 120
_TALKATIVE = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
_STATES = {"PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "succeeded", "STOPPED": "stopped"}
T = TypeVar("T")


def send(address: str, request: Mapping[str, Any]) -> str:
    """Submits a job. Returns its name.

    Args:
      address: URL of the cluster's dashboard.
      request: arguments of `JobSubmissionClient.submit_job`.

    Raises:
      UserError: if there is no cluster, or it does not take the job.
    """
    client = _client(address)
    deadline = time.monotonic() + _AGENT_SECONDS
    while True:
        try:
            return _asked(address, lambda: client.submit_job(**request))
        except UserError as error:  # a dashboard answers before its cluster takes jobs
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def standing(address: str, name: str) -> tuple[str, str]:
    """(state, what Ray says of it): "pending" | "running" | "succeeded" | "failed" | "stopped"."""
    client = _client(address)
    info = _asked(address, lambda: client.get_job_info(name))
    return _STATES.get(str(info.status.value), "failed"), info.message or ""


def logs(address: str, name: str, follow: bool) -> Iterator[str]:
    """What a job has printed, in pieces; with `follow` until it ends."""
    client = _client(address)
    if not follow:
        yield _asked(address, lambda: client.get_job_logs(name))
        return
    _asked(address, lambda: client.get_job_info(name))  # says whether there is such a job
    pieces = client.tail_job_logs(name).__aiter__()
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield _asked(address, lambda: loop.run_until_complete(pieces.__anext__()))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())  # closes the connection, if the reader has had enough
        loop.close()


def stop(address: str, name: str) -> None:
    """Asks a job to end. Nothing happens to one that has ended."""
    client = _client(address)
    _asked(address, lambda: client.stop_job(name))


def _client(address: str) -> JobSubmissionClient:
    for part in _TALKATIVE:
        logging.getLogger(f"ray.{part}").setLevel(logging.WARNING)  # they tell of each upload
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # else one of the environment has the last word
    return _asked(address, lambda: JobSubmissionClient(address))


def _asked(address: str, ask: Callable[[], T]) -> T:
    """What a call returns; its errors as sentences."""
    try:
        return ask()
    except (ConnectionError, requests.exceptions.ConnectionError) as error:
        raise UserError(
            f"there is no Ray dashboard at {address}: start Ray with one (ray[default]), or name another with "
            "cluster.address=http://HOST:8265"
        ) from error
    except (RuntimeError, OSError) as error:  # the API has no errors of its own
        if "ray[default]" in str(error):
            raise UserError("cluster=ray_job needs Ray's client of jobs: pip install 'nas[cluster]'") from error
        raise UserError(f"Ray at {address} refused: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """Without the server's traceback."""
    return printable(message.partition("Traceback")[0] or message)[:500]
