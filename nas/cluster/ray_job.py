"""A search as a job of a Ray cluster that is running (https://docs.ray.io/en/latest/cluster/running-applications).

The cluster's nodes have the project's requirements; the project itself goes along with the job.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas.cluster.job import DRIVER, Job, Standing, has_password
from nas.cluster.package import packages_of, stage
from nas.errors import UserError
from nas.settings import Settings

_LOOPBACK = "http://127.0.0.1:8265"
_STOP_SECONDS = 60  # a search that is asked to stop has so long to close its journal


def request(job: Job) -> dict[str, Any]:
    """What the Jobs API is asked for, but for the packages themselves."""
    python = job.settings.cluster.python or "python"
    environment = {**DRIVER, "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS), "PYTHONUNBUFFERED": "1"}
    return {
        "submission_id": job.name,
        "entrypoint": shlex.join([python, "-m", "nas", *job.arguments]),  # Ray gives it to a shell
        "runtime_env": {"env_vars": environment},
        "metadata": {"search": job.results},
    }


def shown(job: Job) -> str:
    with tempfile.TemporaryDirectory(prefix="nas-submit-") as folder:
        files = stage(packages_of(job.settings.search_space.module), Path(folder))
    asked = {"address": address_of(job.settings), **request(job)}
    asked["runtime_env"] = {**asked["runtime_env"], "working_dir": _listed(files)}
    text: str = yaml.safe_dump(asked, sort_keys=False, width=120, allow_unicode=True)
    return text


def send(job: Job) -> str:
    from nas.execution import jobs  # Ray takes a second to import

    asked = request(job)
    with tempfile.TemporaryDirectory(prefix="nas-submit-") as folder:
        stage(packages_of(job.settings.search_space.module), Path(folder))
        asked["runtime_env"]["working_dir"] = folder
        return jobs.send(address_of(job.settings), asked)


def standing(name: str, settings: Settings) -> Standing:
    from nas.execution import jobs

    return Standing(*jobs.standing(address_of(settings), name))


def logs(name: str, settings: Settings, follow: bool) -> Iterator[str]:
    from nas.execution import jobs

    yield from jobs.logs(address_of(settings), name, follow)


def stop(name: str, settings: Settings) -> None:
    from nas.execution import jobs

    jobs.stop(address_of(settings), name)


def address_of(settings: Settings) -> str:
    """The dashboard's URL.

    Raises:
      UserError: if there is a password in it: it would be shown.
    """
    address = settings.cluster.address or os.environ.get("RAY_API_SERVER_ADDRESS") or _LOOPBACK
    if has_password(address):
        raise UserError("the address of the Ray dashboard has a password in it: Ray takes tokens, by RAY_AUTH_TOKEN")
    return address.rstrip("/")


def _listed(files: Sequence[Path]) -> list[str]:
    return [path.as_posix() for path in files]
