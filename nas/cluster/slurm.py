"""A search as one SLURM allocation: sbatch begins a script, and `ray symmetric-run` a Ray over all its nodes.

The nodes share a file system with whoever submits: the job runs this very installation, in this very folder.
"""

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nas.cluster import tools
from nas.cluster.job import Job, Standing
from nas.errors import UserError
from nas.settings import Settings

_PURPOSE = "cluster=slurm needs"
_STATES = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED"), "pending"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING"), "running"),
    "COMPLETED": "succeeded",
    "CANCELLED": "stopped",
}  # every other one is a way to fail
_POLL_SECONDS = 2.0


def script(job: Job) -> str:
    """The batch script."""
    cluster = job.settings.cluster
    python = cluster.python or sys.executable
    options = {
        "job-name": job.name,
        "nodes": cluster.workers,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus,
        "gpus-per-node": cluster.gpus or None,
        "mem": f"{cluster.memory_gib}G",
        "time": cluster.minutes,
        "partition": cluster.partition,
        "account": cluster.account,
    }
    directives = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    tools_first = [f'export PATH={shlex.quote(str(Path(python).parent))}:"$PATH"'] if "/" in python else []
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *directives,
            "# symmetric-run takes a node for its own, and ends every Ray on it:",
            "#SBATCH --exclusive",
            "set -euo pipefail",
            *tools_first,
            "export RAY_USAGE_STATS_ENABLED=0",
            "export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600  # seconds until all nodes have come",
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "port=$((20000 + SLURM_JOB_ID % 10000))  # out of the range that Ray gives its workers",
            'exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \\',
            '  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \\',
            '  --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats -- \\',
            f"  {shlex.join([python, '-m', 'nas', *job.arguments])}",
            "",
        ]
    )


def command(job: Job) -> list[str]:
    """What the script is given to. Paths stand here, where no shell and no parser of directives reads them."""
    log = Path(job.settings.results_dir if job.settings.resume is None else Path(job.results).parent).absolute()
    pattern = str(log).replace("%", "%%") + "/slurm-%j.log"
    return ["sbatch", "--parsable", f"--chdir={Path.cwd()}", f"--output={pattern}"]


def shown(job: Job) -> str:
    return f"# {shlex.join(command(job))} <<'END'\n{script(job)}"


def send(job: Job) -> str:
    folder = Path(job.results).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)  # SLURM makes none for its log, and drops the job without a word
    except OSError as error:
        raise UserError(f"results_dir={folder}: the folder can't be made: {error.strerror}") from error
    answer = tools.run(command(job), _PURPOSE, script(job)).strip()
    number = answer.partition(";")[0]  # the number, then in a federation the cluster's name
    if not number.isdecimal():
        raise UserError(f"sbatch did not answer with a job's number: {answer}")
    return number


def standing(name: str, settings: Settings) -> Standing:
    """From the queue; once a job has left it, from the accounting, where there is one."""
    _require_number(name)
    try:
        listed = tools.run(["squeue", "--noheader", "--states=all", f"--jobs={name}", "--format=%T"], _PURPOSE)
    except UserError as error:
        if "Invalid job id" not in str(error):
            raise
        listed = ""  # it has left the queue
    if not listed.strip():
        words = ["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={name}", "--format=State"]
        try:
            listed = tools.run(words, _PURPOSE)
        except UserError:
            listed = ""
    if not listed.strip():
        raise UserError(f"SLURM no longer knows job {name}: it has ended; nas logs slurm/{name} says how")
    return standing_of(listed.split("\n")[0].strip())


def standing_of(state: str) -> Standing:
    """From SLURM's word for it, e.g. "CANCELLED by 1000"."""
    return Standing(_STATES.get(state.split()[0].rstrip("+"), "failed"), state)


def logs(name: str, settings: Settings, follow: bool) -> Iterator[str]:
    _require_number(name)
    path = Path(settings.results_dir).absolute() / f"slurm-{name}.log"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
            while follow and standing(name, settings).state in ("pending", "running"):
                time.sleep(_POLL_SECONDS)
                yield from file
            yield from file
    except FileNotFoundError:
        raise UserError(
            f"there is no {path} yet: has the job begun, and is results_dir= the one it was sent with?"
        ) from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def stop(name: str, settings: Settings) -> None:
    _require_number(name)
    tools.run(["scancel", name], _PURPOSE)


def _require_number(name: str) -> None:
    if not name.isdecimal():
        raise UserError(f"slurm/{name} is none of SLURM's jobs, which have numbers: slurm/12345")
