"""What KubeRay takes: its RayJob by name and type of each field, its pods by Kubernetes' own schemas, its size by Ray.

No package brings the CRD along, so `RAYJOB` below is written after the published one (ray.io_rayjobs.yaml of KubeRay
1.5, Apache-2.0): the fields that this project uses, their types, which are needed. A field that it does not name fails.
"""

from typing import Any

import kubernetes_validate
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

KUBERNETES = "1.34"
POD = "a template of a pod"  # goes to Kubernetes' own schema
_GROUP = {"rayStartParams": {str: str}, "template": POD}
RAYJOB = {
    "entrypoint": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": {
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {
            "idleTimeoutSeconds": int,
            "upscalingMode": ("Default", "Aggressive", "Conservative"),
        },
        "headGroupSpec": _GROUP,
        "workerGroupSpecs": [{"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **_GROUP}],
    },
}
NEEDED = {"headGroupSpec", "template", "groupName", "minReplicas", "maxReplicas"}  # where their parent is


def autoscaled(rayjob: dict[str, Any]) -> dict[str, Any]:
    """What Ray's own autoscaler reads in a RayJob, which has been checked in every other way before.

    Raises:
      AssertionError, kubernetes_validate.ValidationError: where it is not as KubeRay and Kubernetes want it.
    """
    assert rayjob["apiVersion"] == "ray.io/v1" and rayjob["kind"] == "RayJob"
    assert set(rayjob) == {"apiVersion", "kind", "metadata", "spec"}
    name = rayjob["metadata"]["name"]
    assert len(name) <= 47 and name.isascii() and name[0].isalpha() and name == name.lower()
    assert all(letter.isalnum() or letter == "-" for letter in name) and name[-1] != "-"
    _check(rayjob["spec"], RAYJOB, "spec")
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    found: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": name, "namespace": "default"}, "spec": cluster}
    )
    return found


def _check(value: Any, schema: Any, where: str) -> None:
    if schema == POD:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "checked"}, "template": value}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for item in value:
            _check(item, schema[0], where)
    elif isinstance(schema, tuple):
        assert value in schema, f"{where}={value}"
    elif isinstance(schema, dict) and str not in schema:
        assert isinstance(value, dict), where
        assert set(value) <= set(schema), f"{where}: {set(value) - set(schema)}"
        assert NEEDED & set(schema) <= set(value), f"{where} needs {NEEDED & set(schema) - set(value)}"
        for key, item in value.items():
            _check(item, schema[key], f"{where}.{key}")
    else:
        assert type(value) is (dict if isinstance(schema, dict) else schema), f"{where}={value!r}"
