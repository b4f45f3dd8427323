"""Where a search can be sent: one file a kind, each with the functions of `Kind`."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from nas.cluster import kuberay, ray_job, slurm
from nas.cluster.job import Job, Standing
from nas.errors import UserError
from nas.settings import Settings


class Kind(Protocol):
    """What each file of a kind has. `name` is the job's name there, as `send` returned it.

    All but `shown` raise UserError where the cluster or the tool that reaches it is not there, or refuses.
    """

    def shown(self, job: Job) -> str:
        """Exactly what would be sent, as text."""

    def send(self, job: Job) -> str:
        """Sends it. Returns its name there."""

    def standing(self, name: str, settings: Settings) -> Standing:
        """How it stands."""

    def logs(self, name: str, settings: Settings, follow: bool) -> Iterator[str]:
        """What it has printed, in pieces; with `follow` until it ends."""

    def stop(self, name: str, settings: Settings) -> None:
        """Ends it. What has finished stays in the search's journal."""


KINDS: Mapping[str, Kind] = {"ray_job": ray_job, "kuberay": kuberay, "slurm": slurm}


def kind_of(name: str) -> Kind:
    """The functions of a kind.

    Raises:
      UserError: if there is none of that name.
    """
    if name not in KINDS:
        raise UserError(f"there is no cluster {name}: there are {', '.join(KINDS)} (cluster=KIND)")
    return KINDS[name]
