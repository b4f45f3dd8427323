"""Every file of cluster/ against what reads it: Ray's validation, KubeRay's and Kubernetes' schemas, bash."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from common import ROOT
from ray._private.accelerators import tpu
from ray.autoscaler._private.util import prepare_config, validate_config
from rayjob_schema import KUBERNETES, autoscaled

from nas.cluster.job import Job
from nas.cluster.kuberay import manifest
from nas.configuration import composed, settings_of

CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file() and path.suffix != ".md")
RAY = sorted((CLUSTER / "ray").glob("*.yaml"))
SCRIPTS = sorted((CLUSTER / "slurm").iterdir())
MLFLOW = [item for item in yaml.safe_load_all((CLUSTER / "kuberay" / "mlflow.yaml").read_text()) if item]
NAMES = [path.name for path in RAY]


def prepared(path: Path) -> dict[str, Any]:
    """A Ray cluster as `ray up` completes and checks it."""
    config: dict[str, Any] = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    return config


def overrides_in(text: str) -> list[str]:
    """The overrides of the `nas` command in a line."""
    return [word for word in shlex.split(text)[2:] if "=" in word]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_first_lines_say_what_to_change(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert any(line.startswith("# Change: ") for line in lines[:2])
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_says_to_submit_can_be_submitted(path: Path) -> None:
    for line in re.findall(r"#\s+(nas submit .*)", path.read_text()):
        if "..." not in line:
            composed(["execution=ray", *overrides_in(line)])


@pytest.mark.parametrize("name", ["mlflow.yaml", "search.yaml"])
def test_secrets_are_named_and_not_written(name: str) -> None:
    for item in filter(None, yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text())):
        assert item["kind"] != "Secret"
        for entry in entries_in(item):
            secret = re.search("PASSWORD|KEY|SECRET|TOKEN", entry["name"])
            assert not secret or entry["valueFrom"]["secretKeyRef"]["name"] == "nas-mlflow"
            assert not re.search(r"://[^/]*:(?!\$\()[^/]*@", entry.get("value", "")), "a password in a URL"


def entries_in(value: Any) -> Iterator[dict[str, Any]]:
    """The environment variables of every container."""
    if isinstance(value, dict):
        yield from value.get("env", [])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from entries_in(inner)


# Ray's cluster launcher


@pytest.mark.parametrize("path", RAY, ids=NAMES)
def test_ray_takes_the_cluster(path: Path) -> None:
    config = prepared(path)
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("path", RAY, ids=NAMES)
def test_the_dashboard_is_on_loopback_and_nothing_is_open(path: Path) -> None:
    config = prepared(path)
    starts = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert len(starts) == 1 and "--dashboard-host=127.0.0.1" in starts[0] and "--head" in starts[0]
    assert "0.0.0.0" not in str(config)


@pytest.mark.parametrize("path", RAY, ids=NAMES)
def test_its_commands_are_bash(path: Path) -> None:
    config = prepared(path)
    for key, commands in config.items():
        if key.endswith("_commands"):
            for command in commands:
                assert subprocess.run(["bash", "-n"], input=command, text=True).returncode == 0, command


def test_an_unknown_field_is_refused() -> None:
    config = prepare_config({**yaml.safe_load(RAY[0].read_text()), "max_worker": 3})
    with pytest.raises(Exception, match="max_worker"):
        validate_config(config)


def test_gpu_workers_are_spot_machines_and_the_head_trains_nothing() -> None:
    kinds = prepared(CLUSTER / "ray" / "gpu-cloud.yaml")["available_node_types"]
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert kinds["gpu"]["resources"]["GPU"] >= 1 and kinds["head"]["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]


def test_a_tpu_slice_has_the_chips_that_ray_counts_in_its_type() -> None:
    kind = prepared(CLUSTER / "ray" / "tpu-slices.yaml")["available_node_types"]["tpu"]
    accelerator = kind["node_config"]["acceleratorType"]
    assert tpu.TPUAcceleratorManager.is_valid_tpu_accelerator_type(accelerator)
    chips = int(accelerator.split("-")[1]) // tpu.get_tpu_cores_per_chip(accelerator)
    assert kind["resources"]["TPU"] == chips <= tpu.get_num_tpu_visible_chips_per_host(accelerator), "one host"
    assert kind["resources"]["CPU"] >= 1, "a trial reserves one beside the chips"


# KubeRay and Kubernetes


def test_kuberay_and_kubernetes_take_the_search_and_it_grows() -> None:
    config = autoscaled(yaml.safe_load((CLUSTER / "kuberay" / "search.yaml").read_text()))
    workers = config["available_node_types"]["workers"]
    assert (workers["min_workers"], workers["max_workers"]) == (0, 16)
    assert workers["resources"]["GPU"] == 1 and config["available_node_types"]["headgroup"]["resources"]["CPU"] == 0


def test_the_search_is_what_nas_submit_sends() -> None:
    found = yaml.safe_load((CLUSTER / "kuberay" / "search.yaml").read_text())
    words = shlex.split(found["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "nas", "search"]
    cluster = "kuberay image=REGISTRY/nas:TAG claim=nas-results secret=nas-search spot=gke workers=16 cpus=16 gpus=1"
    chosen = [f"cluster.{part}" if "=" in part else f"cluster={part}" for part in cluster.split()]
    settings = settings_of(composed([*words[4:], *chosen, "cluster.memory_gib=64"]))
    assert manifest(Job("nas-first", tuple(words[3:]), "/results/first", settings)) == found


@pytest.mark.parametrize("item", MLFLOW, ids=lambda item: f"{item['kind']} {item['metadata']['name']}")
def test_kubernetes_takes_each_object(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_a_misspelt_field_of_a_pod_is_refused() -> None:
    item = yaml.safe_load(yaml.safe_dump(next(item for item in MLFLOW if item["kind"] == "Deployment")))
    item["spec"]["template"]["spec"]["container"] = item["spec"]["template"]["spec"].pop("containers")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_services_find_their_pods_and_none_is_open_to_the_world() -> None:
    pods = {item["metadata"]["name"]: item["spec"]["template"] for item in MLFLOW if "template" in item["spec"]}
    guarded = [item["spec"]["podSelector"] for item in MLFLOW if item["kind"] == "NetworkPolicy"]
    for service in (item for item in MLFLOW if item["kind"] == "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
        name = service["metadata"]["name"]
        assert service["spec"]["selector"] == pods[name]["metadata"]["labels"]
        ports = {port["containerPort"] for port in pods[name]["spec"]["containers"][0]["ports"]}
        assert {port["port"] for port in service["spec"]["ports"]} <= ports
        assert name in str(guarded), "a policy says who may ask it"
    assert not [item for item in MLFLOW if item["kind"] == "Ingress"]


def test_mlflow_has_the_options_and_variables_that_it_is_given() -> None:
    """By its sources: to import its command line takes as long as all other tests here."""
    (pod,) = (item["spec"]["template"]["spec"] for item in MLFLOW if item["kind"] == "Deployment")
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "mlflow"] and container["args"][0] == "server"
    (package,) = find_spec("mlflow").submodule_search_locations  # type: ignore[union-attr, misc]
    sources = ["cli/__init__.py", "utils/cli_args.py", "environment_variables.py", "server/__init__.py"]
    known = "".join(Path(package, source).read_text() for source in sources)
    for option in container["args"][1:]:
        assert f'"{option.partition("=")[0]}"' in known, option
    for entry in container["env"]:
        assert not entry["name"].startswith("MLFLOW") or f'"{entry["name"]}"' in known, entry["name"]


def test_the_python_of_a_pod_is_python() -> None:
    (job,) = (item["spec"]["template"]["spec"] for item in MLFLOW if item["kind"] == "Job")
    compile(job["containers"][0]["args"][0], "nas-bucket", "exec")


def test_the_stores_keys_become_json() -> None:
    (script,) = (
        item["spec"]["template"]["spec"]["containers"][0]["args"][0]
        for item in MLFLOW
        if item["metadata"]["name"] == "nas-store" and item["kind"] == "StatefulSet"
    )
    writes = re.search(r"printf .*?\"\$KEY\" \"\$SECRET\"", script, re.DOTALL)
    assert writes
    shown = subprocess.run(["sh", "-c", writes[0]], env={"KEY": "k", "SECRET": "s"}, capture_output=True, text=True)
    assert json.loads(shown.stdout)["identities"][0]["credentials"] == [{"accessKey": "k", "secretKey": "s"}]


# Shell scripts and the image


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_is_bash(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        sentence = "there is no shellcheck here: apt-get install shellcheck"
        pytest.fail(sentence) if "CI" in os.environ else pytest.skip(sentence)
    assert subprocess.run([shellcheck, "--shell=bash", path]).returncode == 0


def test_the_image_is_made_of_what_there_is() -> None:
    lines = (CLUSTER / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    assert {step for step, _ in steps} <= {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER"} and steps[0][0] == "FROM"
    for step, rest in steps:
        if step == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    assert [rest for step, rest in steps if step == "USER"][-1] == "ray", "nobody's root"
    extras = set(re.search(r"\.\[([a-z,]+)\]", "\n".join(lines))[1].split(","))  # type: ignore[index]
    assert extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
