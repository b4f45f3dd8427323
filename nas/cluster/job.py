"""What is sent to a cluster, whatever its kind: a search's command line, checked before anything is sent."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError
from nas.settings import Settings, is_url
from nas.sharing import split

DRIVER = {"TUNE_MAX_PENDING_TRIALS_PG": "1000"}  # trials that may wait for room; by Tune's default one, then the next
NAME_LENGTH = 47  # KubeRay takes no more: names of pods are made of it
_PATHS = ("results_dir", "resume", "path", "notes_dir")  # settings that are paths, beside those of groups:
_PATHS_OF = {"proposer": "path", "corpus": "path", "llm": "prompts", "meta": "prior", "search": "shared"}
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # of a URL with both user and password
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")  # what the names of such environment variables end in
_LEAST_SECRET = 8  # characters: shorter values are words that may stand anywhere


@dataclass(frozen=True)
class Job:
    """One search as a job.

    Attributes:
      name: of the job, a DNS label of at most `NAME_LENGTH` characters.
      arguments: what follows `python -m nas` there.
      results: the search's folder, as the cluster's nodes see it.
      settings: of the search, and of the cluster that it is sent to.
    """

    name: str
    arguments: tuple[str, ...]
    results: str
    settings: Settings


@dataclass(frozen=True)
class Standing:
    """How a job stands: "pending" | "running" | "succeeded" | "failed" | "stopped", and what the cluster says of it."""

    state: str
    detail: str = ""


def job_of(settings: Settings, overrides: Sequence[str], now: str, tag: str, environment: Mapping[str, str]) -> Job:
    """The search that `overrides` ask for, as a job.

    Args:
      settings: what the overrides make of the defaults.
      now: date and time, as a search without a name is called.
      tag: a few hexadecimal digits, so that no two jobs have one name.
      environment: of this process: its secrets must not be sent.

    Raises:
      UserError: if a path would not hold there, or an override has a secret in it.
    """
    _refuse_secrets(overrides, environment)
    sent = [override for override in overrides if group_of(override) != "cluster"]
    if settings.resume is None:
        sent = with_ray(sent)
    if settings.execution.address is None or (settings.resume and settings.execution.address == "auto"):
        sent.append("execution.address=auto")  # of what else trials run on, a resumed search has its own record
    if settings.cluster.kind != "slurm":  # there the job begins in this very folder
        _refuse_relative_paths(settings)
    search = settings.name or f"{now}_seed{settings.seed}"
    if settings.resume and is_url(settings.resume):
        _, called = split(settings.resume)
        results = str(Path(settings.results_dir) / called)
    elif settings.resume:
        results, called = settings.resume, Path(settings.resume).name
    else:
        results, called = str(Path(settings.results_dir) / search), search
        sent = sent if settings.name else [*sent, f"name={search}"]
    return Job(
        name=_label(called, tag),
        arguments=("search", *sent),
        results=str(Path(results).absolute()) if settings.cluster.kind == "slurm" else results,
        settings=settings,
    )


def with_ray(overrides: Sequence[str]) -> list[str]:
    """These overrides, on the Ray that a job finds itself in unless they choose what they run on."""
    chosen = any(override.startswith("execution=") for override in overrides)
    return [*overrides] if chosen else ["execution=ray", *overrides]


def has_password(text: str) -> bool:
    """Whether there is a URL with a password in it."""
    return bool(_PASSWORD.search(text))


def group_of(override: str) -> str:
    """The first part of the key that an override names."""
    return override.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0]


def trials_at_a_time(settings: Settings) -> int:
    """How many trials the whole of a growing cluster has room for.

    Raises:
      UserError: if one node has no room for one.
    """
    execution, cluster = settings.execution, settings.cluster
    room = {"CPU": cluster.cpus / execution.cpus_per_trial}
    if execution.gpus_per_trial:
        room["GPU"] = cluster.gpus / execution.gpus_per_trial
    of_one_node = math.floor(min(room.values()) + 1e-9)
    if of_one_node < 1:
        raise UserError(
            f"one trial needs {execution.cpus_per_trial:g} CPU and {execution.gpus_per_trial:g} GPU and a worker has "
            f"{cluster.cpus} and {cluster.gpus}: raise cluster.cpus and cluster.gpus, or lower execution.*_per_trial"
        )
    return of_one_node * cluster.workers


def _label(search: str, tag: str) -> str:
    """A DNS label that begins with a letter and says which search it is."""
    slug = re.sub(r"[^a-z0-9]+", "-", search.lower()).strip("-")
    return f"nas-{slug[: NAME_LENGTH - len(tag) - 5].strip('-')}-{tag}".replace("--", "-")


def _refuse_secrets(overrides: Sequence[str], environment: Mapping[str, str]) -> None:
    secrets = [
        value for name, value in environment.items() if _SECRET.search(name.upper()) and len(value) >= _LEAST_SECRET
    ]
    for override in overrides:
        if has_password(override) or any(secret in override for secret in secrets):
            key = override.partition("=")[0]
            raise UserError(
                f"{key} has a secret in it, which would be sent and shown: leave it out, and put it into the "
                "environment of the cluster's nodes (cluster.secret with kuberay)"
            )


def _refuse_relative_paths(settings: Settings) -> None:
    """A path that begins in this folder leads nowhere on a cluster's nodes."""
    fetched = is_url(settings.resume or "")
    if (settings.resume is None or fetched) and not _is_whole(settings.results_dir):
        which = "that every node can make" if settings.store or fetched else "that all nodes of the cluster see"
        raise UserError(
            f"results_dir={settings.results_dir} must be the whole path of a folder {which}, "
            "e.g. results_dir=/shared/results"
        )
    given = {name: getattr(settings, name) for name in _PATHS if name != "results_dir"}
    given |= {f"{group}.{name}": getattr(getattr(settings, group), name) for group, name in _PATHS_OF.items()}
    if settings.corpus.tokenizer not in ("bytes", "bpe"):
        given["corpus.tokenizer"] = settings.corpus.tokenizer
    if settings.resume is not None:  # then all but it come from the journal
        given = {} if fetched else {"resume": settings.resume}
    for key, path in given.items():
        if path is not None and not is_url(path) and not _is_whole(path):
            raise UserError(f"{key}={path} must be a whole path, as the cluster's nodes see it")


def _is_whole(path: str) -> bool:
    return path.startswith("/")
