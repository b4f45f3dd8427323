"""A search as a KubeRay RayJob (https://docs.ray.io/en/latest/cluster/kubernetes): a cluster made for it, then gone.

The head runs the driver, so it alone gets the secret; workers come and go as trials ask for them.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from nas.cluster import tools
from nas.cluster.job import DRIVER, Job, Standing, trials_at_a_time
from nas.errors import UserError
from nas.settings import ClusterSettings, Settings, is_url

_PURPOSE = "cluster=kuberay needs"
_RESULTS = "results"  # name of the volume
_HEAD = {"cpu": "2", "memory": "8Gi"}
_IDLE_SECONDS = 300  # a worker is kept so long without a trial: the pause between two of them is shorter
_KEPT_SECONDS = 600  # the cluster is kept so long after the search has ended
_SPOT = {  # cloud -> label and taint of nodes that may be taken away
    "gke": ("cloud.google.com/gke-spot", "true"),
    "eks": ("karpenter.sh/capacity-type", "spot"),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
}
_ENVIRONMENT = ({"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},)
_FAILED = ("Failed", "ValidationFailed")  # states of the job's deployment


def manifest(job: Job) -> dict[str, Any]:
    """The RayJob.

    Raises:
      UserError: for what only the person can say: the image, the claim, room for a trial.
    """
    cluster = job.settings.cluster
    needed = {"image": "made by cluster/Containerfile"}
    if not _has_store(job):
        needed["claim"] = "a PersistentVolumeClaim for results_dir, or store=URL"
    for name, what in needed.items():
        if getattr(cluster, name) is None:
            raise UserError(f"cluster=kuberay needs cluster.{name}=NAME, {what}")
    spec = {
        "entrypoint": entrypoint(job),
        "submissionMode": "K8sJobMode",  # its pod keeps the driver's log
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "rayClusterSpec": {
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"idleTimeoutSeconds": _IDLE_SECONDS, "upscalingMode": "Default"},
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},  # no trial beside the driver
                "template": {"spec": _pod("ray-head", job, _HEAD, _of_the_driver(cluster))},
            },
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": cluster.least_workers,
                    "minReplicas": cluster.least_workers,
                    "maxReplicas": cluster.workers,
                    "rayStartParams": {},
                    "template": {
                        "spec": {**_pod("ray-worker", job, _room(cluster), _noticed(cluster)), **_placed(cluster)}
                    },
                }
            ],
        },
    }
    labels = {"app.kubernetes.io/name": "nas", "app.kubernetes.io/component": "search"}
    metadata = {"name": job.name, "labels": labels}
    if cluster.namespace:
        metadata["namespace"] = cluster.namespace
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def entrypoint(job: Job) -> str:
    """The search as a shell's line. KubeRay puts it into a container's arguments, where a $ is written $$."""
    arguments = list(job.arguments)
    if job.settings.resume is None and job.settings.execution.workers is None:
        # The search counts what room the cluster has when it starts, and this one starts small.
        arguments.append(f"execution.workers={trials_at_a_time(job.settings)}")
    return shlex.join([job.settings.cluster.python or "python", "-m", "nas", *arguments]).replace("$", "$$")


def shown(job: Job) -> str:
    """The manifest as YAML, as kubectl gets it."""
    plain = json.loads(json.dumps(manifest(job)))  # else YAML has one place refer to another
    text: str = yaml.safe_dump(plain, sort_keys=False, width=120, allow_unicode=True)
    return text


def send(job: Job) -> str:
    tools.run([*_kubectl(job.settings.cluster), "apply", "--filename=-"], _PURPOSE, shown(job))
    return job.name


def standing(name: str, settings: Settings) -> Standing:
    answer = tools.run([*_kubectl(settings.cluster), "get", f"rayjob.ray.io/{name}", "--output=json"], _PURPOSE)
    try:
        return standing_of(json.loads(answer).get("status") or {})
    except (ValueError, AttributeError) as error:
        raise UserError(f"kubectl did not answer with a RayJob: {error}") from error


def standing_of(status: Mapping[str, Any]) -> Standing:
    """From a RayJob's status: the job's own, or before there is one, that of its cluster."""
    deployed = str(status.get("jobDeploymentStatus") or "")
    state = str(status.get("jobStatus") or "").lower()
    if deployed in _FAILED and state != "stopped":
        state = "failed"
    elif deployed in ("Suspending", "Suspended"):
        state = "stopped"
    return Standing(state or "pending", "; ".join(filter(None, (deployed, str(status.get("message") or "")))))


def logs(name: str, settings: Settings, follow: bool) -> Iterator[str]:
    words = [*_kubectl(settings.cluster), "logs", f"job/{name}", *(["--follow"] if follow else [])]
    yield from tools.lines(words, _PURPOSE)


def stop(name: str, settings: Settings) -> None:
    tools.run([*_kubectl(settings.cluster), "delete", f"rayjob.ray.io/{name}", "--wait=false"], _PURPOSE)


def _kubectl(cluster: ClusterSettings) -> list[str]:
    return [
        "kubectl",
        *([f"--context={cluster.context}"] if cluster.context else []),
        *([f"--namespace={cluster.namespace}"] if cluster.namespace else []),
    ]


def _pod(name: str, job: Job, room: Mapping[str, str], more: Mapping[str, Any]) -> dict[str, Any]:
    cluster = job.settings.cluster
    folder = job.results.rstrip("/").rpartition("/")[0]
    container = {
        "name": name,
        "image": cluster.image,
        "env": [*_ENVIRONMENT],
        **_secrets(cluster.store_secret),
        "resources": {"requests": dict(room), "limits": dict(room)},
        "volumeMounts": [{"name": _RESULTS, "mountPath": folder}],
        **more,
    }
    claimed = {"persistentVolumeClaim": {"claimName": cluster.claim}} if cluster.claim else {"emptyDir": {}}
    volume = {"name": _RESULTS, **claimed}
    return {
        "automountServiceAccountToken": name == "ray-head",  # its autoscaler asks the API server for pods
        "securityContext": {"fsGroup": 1000},
        "containers": [container],
        "volumes": [volume],
    }


def _room(cluster: ClusterSettings) -> dict[str, str]:
    room = {"cpu": str(cluster.cpus), "memory": f"{cluster.memory_gib}Gi"}
    return {**room, "nvidia.com/gpu": str(cluster.gpus)} if cluster.gpus else room


def _of_the_driver(cluster: ClusterSettings) -> dict[str, Any]:
    environment = {"env": [*_ENVIRONMENT, *({"name": name, "value": value} for name, value in DRIVER.items())]}
    return {**environment, **_secrets(cluster.secret, cluster.store_secret)}


def _secrets(*names: str | None) -> dict[str, Any]:
    """What a container's environment has of Secrets."""
    named = [{"secretRef": {"name": name}} for name in names if name]
    return {"envFrom": named} if named else {}


def _has_store(job: Job) -> bool:
    """Whether the nodes need no folder that all of them see."""
    return job.settings.store is not None or is_url(job.settings.resume or "")


def _noticed(cluster: ClusterSettings) -> dict[str, Any]:
    """Trials write where they are before their pod ends: Kubernetes gives it 30 s after that has begun."""
    command = [cluster.python or "python", "-m", "nas.preemption", "20"]
    return {"lifecycle": {"preStop": {"exec": {"command": command}}}}


def _placed(cluster: ClusterSettings) -> dict[str, Any]:
    """Which nodes workers go to."""
    tolerations = []
    placed: dict[str, Any] = {}
    if cluster.spot != "none":
        label, value = _SPOT[cluster.spot]
        placed["nodeSelector"] = {label: value}
        tolerations.append({"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    if cluster.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    return {**placed, "tolerations": tolerations} if tolerations else placed
