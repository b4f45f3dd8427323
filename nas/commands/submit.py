"""`nas submit`: a search sent to a cluster; `nas status`, `nas logs` and `nas stop`, by what that has printed."""

import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from nas.cluster import kind_of
from nas.cluster.job import Job, group_of, job_of, with_ray
from nas.configuration import composed, resumed, settings_of
from nas.errors import UserError
from nas.settings import Settings, is_url
from nas.sharing import place, split
from nas.terminal import printable, visible

_USAGE = "usage: nas submit cluster=ray_job|kuberay|slurm [cluster.KEY=VALUE ...] [search overrides] [--dry-run]"
_AFTERWARDS = "usage: nas {action} KIND/NAME [cluster.KEY=VALUE ...], as nas submit has printed it"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # enters URLs and command lines
_NEEDED = ("cluster.address", "cluster.namespace", "cluster.context")  # to find a job again
_GOOD = ("pending", "running", "succeeded")


def submit(words: Sequence[str]) -> int:
    """Sends a search to a cluster, or with --dry-run shows what would be sent.

    Raises:
      UserError: if the search could not begin as it is asked for, or the cluster does not take it.
    """
    dry_run = "--dry-run" in words
    overrides = [word for word in words if word != "--dry-run"]
    if any(word.startswith("-") for word in overrides):
        raise UserError(_USAGE)
    settings = settings_of(composed(with_ray(overrides)))
    if settings.cluster.kind == "none":
        raise UserError(_USAGE)
    kind = kind_of(settings.cluster.kind)
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    job = job_of(settings, overrides, now, secrets.token_hex(2), os.environ)
    if settings.resume:  # its record is there; what no resumed search may change is known here
        resumed(Path(settings.resume), asdict(settings), settings, job.arguments[1:])
    if dry_run:
        sys.stdout.write(kind.shown(job))
        print("nothing was sent", file=sys.stderr)
        return 0
    name = f"{settings.cluster.kind}/{kind.send(job)}"
    for line in _how_to_go_on(name, job, overrides):
        print(visible(line))
    return 0


def status(words: Sequence[str]) -> int:
    """Prints how a job stands. Returns 0, or 1 if it has failed or was stopped."""
    kind, name, settings = _found("status", words)
    standing = kind_of(kind).standing(name, settings)
    print(printable(f"{kind}/{name}: {standing.state}" + (f" ({standing.detail})" if standing.detail else "")))
    return 0 if standing.state in _GOOD else 1


def logs(words: Sequence[str]) -> int:
    """Prints what a job has printed; with --follow until it ends."""
    kind, name, settings = _found("logs", [word for word in words if word != "--follow"])
    for piece in kind_of(kind).logs(name, settings, "--follow" in words):
        sys.stdout.write(visible(piece))
        sys.stdout.flush()
    return 0


def stop(words: Sequence[str]) -> int:
    """Asks a job to end."""
    kind, name, settings = _found("stop", words)
    kind_of(kind).stop(name, settings)
    print(f"{kind}/{name} was asked to stop: what has finished is in its journal, and resume= goes on with it")
    return 0


def _found(action: str, words: Sequence[str]) -> tuple[str, str, Settings]:
    """(kind, name, settings) of the job that a command line names."""
    jobs = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    kind, _, name = jobs[0].partition("/") if len(jobs) == 1 else ("", "", "")
    if not _NAME.fullmatch(name):
        raise UserError(_AFTERWARDS.format(action=action))
    kind_of(kind)
    return kind, name, settings_of(composed(overrides))


def _how_to_go_on(name: str, job: Job, overrides: Sequence[str]) -> list[str]:
    """What was sent, and the commands for what comes next."""
    again = [override for override in overrides if override.partition("=")[0].lstrip("+") in _NEEDED]
    if name.startswith("slurm/"):  # its log lies there
        again.append(f"results_dir={_quoted(str(Path(job.results).parent))}")
    cluster = [override for override in overrides if group_of(override) == "cluster"]
    commands = {
        ("status", name, *again): "how it stands",
        ("logs", name, "--follow", *again): "what it prints",
        ("stop", name, *again): "ends it: what has finished is kept",
        ("submit", *cluster, *_where(job)): "goes on with it",
    }
    lines = [f"sent as {name}: its journal and its report will be in {job.results}"]
    return lines + [f"  {shlex.join(['nas', *words])}    {what}" for words, what in commands.items()]


def _where(job: Job) -> list[str]:
    """The overrides by which the search is gone on with: from its store, if it has one."""
    folder, store = Path(job.results), job.settings.store
    if is_url(job.settings.resume or ""):
        store, _ = split(job.settings.resume or "")
    if store is None:
        return [f"resume={_quoted(job.results)}"]
    return [f"resume={_quoted(place(store, folder.name))}", f"results_dir={_quoted(str(folder.parent))}"]


def _quoted(value: str) -> str:
    """As an override's value: Hydra takes many signs for its own."""
    plain = re.fullmatch(r"[\w./:-]+", value)
    return value if plain else QuotedString(value, Quote.single).with_quotes()
