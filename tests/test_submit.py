"""`nas submit` and what follows it: what is sent is exactly what was asked for, and nothing that nobody asked for.

kubectl and sbatch are stood in for by scripts that keep what they were given; a real Ray is in test_submit_end_to_end.
"""

import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from rayjob_schema import autoscaled

from nas.cli import HELP, main
from nas.cluster import KINDS, kind_of, kuberay, ray_job, slurm
from nas.cluster.job import NAME_LENGTH, Job, job_of
from nas.cluster.package import packages_of, stage
from nas.commands import submit
from nas.configuration import composed, settings_of
from nas.errors import UserError
from nas.settings import ClusterSettings, Settings

TO = {
    "ray_job": ["cluster=ray_job", "results_dir=/shared/results"],
    "kuberay": ["cluster=kuberay", "cluster.image=here/nas:1", "cluster.claim=nas", "results_dir=/results"],
    "slurm": ["cluster=slurm", "results_dir=/shared/results"],
}
AWKWARD = [  # words that a shell would take for something else
    "path=/with spaces/and  more",
    "path='single' \"double\"",
    "path=$HOME ${HOME} $(id) `id` $$ $$(HOME) $1",
    "path=one\ntwo\n#SBATCH --nodes=1000\n",
    "path=*;rm -rf /|&<>(){}[]!~#?",
    "path=back\\slash\\n",
    "path=é\u202e☃",
    "path=%j %x",
    "",
    "--",
    "-c",
]


@cache
def once(overrides: tuple[str, ...]) -> Any:
    """Hydra takes a fifth of a second for each."""
    return composed(overrides)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster of the person's can be reached by accident."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/dev/null")
    monkeypatch.setattr(submit, "composed", lambda overrides: once(tuple(overrides)))


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a program that keeps its arguments and input, and answers. Returns how to read both."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name: str, answer: str = "", code: int = 0):
        (folder / f"{name}.answer").write_text(answer)
        kept = folder / f"{name}.kept"
        program = folder / name
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\0' \"$@\" > {kept}.arguments\ncat > {kept}.input\n"
            f"cat {folder}/{name}.answer{' >&2' if code else ''}\nexit {code}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        read = lambda: (words_in(Path(f"{kept}.arguments").read_bytes()), Path(f"{kept}.input").read_text())  # noqa: E731
        return read

    return make


def words_in(shown: bytes) -> list[str]:
    """Words that were printed with a NUL after each."""
    return shown.decode().split("\0")[:-1]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


GROUPS = {"execution=ray": {"address": "auto"}, "execution=gpu": {"address": None, "gpus_per_trial": 0.25}}


def settings_for(*overrides: str) -> Settings:
    """As Hydra composes them, in a hundredth of the time: `test_what_is_sent_composes_...` has Hydra itself."""
    values = asdict(Settings())
    chosen = [override for override in overrides if override in GROUPS] or ["execution=ray"]
    values["execution"] |= GROUPS[chosen[0]]
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, name = key.rpartition(".")
        if key == "cluster":
            values["cluster"]["kind"] = value
        elif override not in GROUPS:
            (values[group] if group else values)[name] = yaml.safe_load(value)
    if "notes_dir" not in "".join(overrides):
        values["notes_dir"] = f"{values['results_dir']}/notes"
    return settings_of(values)


def job(kind: str, *overrides: str, arguments: tuple[str, ...] | None = None) -> Job:
    """A job of this kind; with `arguments` instead of those that the overrides make."""
    given = [*TO[kind], *overrides]
    made = job_of(settings_for(*given), given, "2026-01-02_03-04-05", "ab12", {})
    return replace(made, arguments=arguments) if arguments is not None else made


# What is asked for


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("submit", "usage: nas submit cluster=ray_job|kuberay|slurm [cluster.KEY=VALUE ...] [search overrides]"),
        ("submit search.trials=3", "usage: nas submit cluster=ray_job|kuberay|slurm"),
        ("submit cluster=ray_job --dry", "usage: nas submit cluster=ray_job|kuberay|slurm"),
        (
            "submit cluster=mesos",
            "In 'config': Could not find 'cluster/mesos' Available options in 'cluster': kuberay ",
        ),
        ("submit cluster=ray_job results_dir=/r sede=1", "there is no key sede: did you mean seed?"),
        ("submit cluster=ray_job results_dir=/r seed=1,2", "Ambiguous value for argument 'seed=1,2'"),
        ("submit cluster=ray_job", "results_dir=results must be the whole path of a folder that all nodes"),
        ("status", "usage: nas status KIND/NAME [cluster.KEY=VALUE ...], as nas submit has printed it"),
        ("status ray_job", "usage: nas status KIND/NAME"),
        ("stop slurm/1 slurm/2", "usage: nas stop KIND/NAME"),
        ("logs kuberay/--all", "usage: nas logs KIND/NAME"),
        ("logs ray_job/../../admin", "usage: nas logs KIND/NAME"),
        ("status mesos/first", "there is no cluster mesos: there are ray_job, kuberay, slurm (cluster=KIND)"),
        ("status slurm/first", "slurm/first is none of SLURM's jobs, which have numbers: slurm/12345"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(words.split(), capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"nas: {sentence}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("cluster=ray_job cluster.workers=0", "cluster.workers=0 must be at least 1"),
        ("cluster=ray_job cluster.address=auto", "cluster.address=auto must be the URL of the dashboard"),
        ("cluster=kuberay cluster.image=--rm", "cluster.image=--rm must be a name"),
        ("cluster=kuberay cluster.least_workers=5", "cluster.least_workers=5 must be from 0 to cluster.workers"),
        ("cluster=ray_job results_dir=results", "results_dir=results must be the whole path of a folder"),
        ("cluster=ray_job resume=results/first", "resume=results/first must be a whole path"),
        (
            "cluster=ray_job results_dir=/r corpus.kind=text corpus.path=notes",
            "corpus.path=notes must be a whole path, as the",
        ),
        (
            "cluster=ray_job results_dir=r store=s3://b/nas",
            "results_dir=r must be the whole path of a folder that every",
        ),
        ("cluster=ray_job resume=s3://b/nas/searches/first", "results_dir=results must be the whole path of a folder"),
        ("cluster=ray_job results_dir=/r resume=s3://b/nas", "s3://b/nas is no search in a store: STORE/searches/NAME"),
        ("cluster=kuberay results_dir=/r meta.prior=p.json", "meta.prior=p.json must be a whole path, as the"),
        ("cluster=kuberay results_dir=/r", "cluster=kuberay needs cluster.image=NAME, made by cluster/Containerfile"),
        ("cluster=kuberay results_dir=/r cluster.image=x", "cluster=kuberay needs cluster.claim=NAME, a Persistent"),
        (
            "cluster=kuberay results_dir=/r cluster.image=x cluster.claim=c execution.gpus_per_trial=1",
            "one trial needs 1 CPU and 1 GPU and a worker has 8 and 0: raise cluster.cpus and cluster.gpus, or lower",
        ),
    ],
)
def test_what_could_not_begin_there_is_one_sentence(overrides: str, sentence: str) -> None:
    given = overrides.split()
    with pytest.raises(UserError) as caught:
        settings = settings_for(*given)
        kind_of(settings.cluster.kind).shown(job_of(settings, given, "now", "ab12", {}))
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_what_a_resumed_search_may_not_change_is_known_before(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["submit", "cluster=ray_job", "resume=/shared/results/first", "seed=2", "--dry-run"], capsys)
    assert (code, out) == (2, "") and err.startswith("nas: seed=2 can't be changed on resume, since earlier trials ran")


@pytest.mark.parametrize("value", ["/plain/path-1", "/with spaces", "/it's", "/100%", "/back\\slash", "/a,b", "/$HOME"])
def test_what_is_printed_to_be_typed_is_read_as_it_was(value: str) -> None:
    parsed = OverridesParser.create().parse_override(f"resume={submit._quoted(value)}")
    text = parsed.value()
    assert (text if isinstance(text, str) else text.text) == value  # a quoted one keeps its quotes beside it


def test_help_speaks_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\n  nas submit " in HELP and "\n  nas status|logs|stop " in HELP
    assert run(["submit", "--help"], capsys) == (0, HELP + "\n", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_needs_no_cluster_and_no_tool(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, err = run(["submit", *TO[kind], "search.trials=3", "--dry-run"], capsys)
    assert (code, err) == (0, "nothing was sent\n")
    assert "-m nas search execution=ray" in out and "search.trials=3" in out and "name=20" in out
    assert "cluster" not in re.sub(r"nas/cluster/|nas_conf/cluster/|RayCluster|rayCluster", "", out)


def test_a_search_runs_on_the_ray_that_it_is_sent_to() -> None:
    assert job("ray_job", "seed=3").arguments == (
        *("search", "execution=ray", "results_dir=/shared/results", "seed=3"),
        "name=2026-01-02_03-04-05_seed3",
    )
    assert "execution.address=auto" in job("ray_job", "execution=gpu").arguments
    assert "execution=ray" not in job("ray_job", "execution=gpu").arguments


def test_what_is_sent_composes_to_the_search_that_was_asked_for() -> None:
    overrides = ["execution=gpu", "model.width=32", "cluster.gpus=1"]
    sent = job("kuberay", *overrides)
    assert settings_of(composed([*TO["kuberay"], *overrides])) == sent.settings
    asked = replace(sent.settings, name=Path(sent.results).name, cluster=ClusterSettings())
    there = settings_of(composed(sent.arguments[1:]))
    assert there == replace(asked, execution=replace(asked.execution, address="auto"))


def test_its_name_and_its_folder_are_known_beforehand() -> None:
    assert job("ray_job").results == "/shared/results/2026-01-02_03-04-05_seed0"
    named = job("ray_job", "name=first")
    assert named.results == "/shared/results/first" and named.arguments[-1] == "name=first"
    resumed = job("ray_job", "resume=/shared/results/first", "search.trials=9")
    assert resumed.results == "/shared/results/first"


def test_a_resumed_search_trains_on_what_its_record_says() -> None:
    """Nothing but where its Ray is: another choice of execution= would take its trials' GPUs away."""
    resume = ["resume=/shared/results/first", "search.trials=9"]
    arguments = ("search", "results_dir=/shared/results", *resume, "execution.address=auto")
    assert job("ray_job", *resume).arguments == arguments
    entrypoint = kuberay.entrypoint(job("kuberay", "resume=/results/first"))
    assert entrypoint.endswith(" resume=/results/first execution.address=auto")


@pytest.mark.parametrize("name", ["first", "A Long Name/with.everything_in it " * 4, "é☃", "--", "0", "x" * 80])
def test_a_job_is_named_after_its_search_as_kubernetes_wants_it(name: str) -> None:
    settings = replace(Settings(), name=name.replace("/", "_"), cluster=ClusterSettings("slurm"))
    found = job_of(settings, [], "now", "ab12", {}).name
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found) and "--" not in found
    assert len(found) <= NAME_LENGTH and found.startswith("nas-") and found.endswith("-ab12")


# Secrets


@pytest.mark.parametrize(
    "override",
    [
        "tracking.uri=postgresql://me:hunter2hunter2@db/mlflow",
        "+llm.extra_body.key=sk-hunter2hunter2",
        "path=hunter2hunter2",
        "cluster.address=https://me:hunter2@head:8265",
    ],
)
def test_a_secret_is_neither_sent_nor_printed(
    override: str,
) -> None:
    given = [*TO["ray_job"], override]
    with pytest.raises(UserError) as caught:
        job_of(settings_for(*TO["ray_job"]), given, "now", "ab12", {"SOME_API_KEY": "hunter2hunter2", "TOKENS": "ray"})
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith(f"{override.partition('=')[0]} has a secret in it, which would be sent and sh")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_environment_is_sent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2hunter2")
    monkeypatch.setenv("AWS_PROFILE", "theirs-alone")
    shown = kind_of(kind).shown(job(kind))
    assert "hunter2" not in shown and "theirs-alone" not in shown


def test_a_password_in_the_dashboards_address_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://me:hunter2@head:8265")
    code, out, err = run(["submit", *TO["ray_job"], "--dry-run"], capsys)
    assert (code, out) == (2, "") and "hunter2" not in err and "has a password in it" in err


# Quoting: whatever shells are on the way, the words that arrive are those that were given


@pytest.fixture
def printer(tmp_path: Path) -> str:
    """A "python" that prints its arguments."""
    path = tmp_path / "the python"  # with a space
    path.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    path.chmod(0o755)
    return str(path)


def test_no_word_becomes_shell_in_a_ray_job(printer: str) -> None:
    sent = replace(job("ray_job"), arguments=("search", *AWKWARD))
    sent = replace(sent, settings=replace(sent.settings, cluster=ClusterSettings("ray_job", python=printer)))
    arrived = subprocess.run(ray_job.request(sent)["entrypoint"], shell=True, capture_output=True, check=True)
    assert words_in(arrived.stdout) == ["-m", "nas", "search", *AWKWARD]


def test_no_word_becomes_shell_in_a_rayjob(printer: str) -> None:
    """By way of the manifest, a container's arguments, the submitter's bash, and the shell of Ray's job."""
    sent = job("kuberay", arguments=("search", *AWKWARD))
    sent = replace(sent, settings=replace(sent.settings, cluster=replace(sent.settings.cluster, python=printer)))
    entrypoint = yaml.safe_load(kuberay.shown(sent))["spec"]["entrypoint"]
    environment = {"HOME": "/home/of/the/pod", "1": "x"}
    kept = expanded(entrypoint.strip(), environment)
    submitted = subprocess.run(["bash", "-ce", f"printf '%s\\0' {kept} ;"], capture_output=True, check=True)
    again = shlex.join(words_in(submitted.stdout))  # as `ray job submit -- WORDS` does
    arrived = subprocess.run(again, shell=True, capture_output=True, check=True)
    assert words_in(arrived.stdout) == ["-m", "nas", "search", *AWKWARD, "execution.workers=32"]


def expanded(text: str, environment: dict[str, str]) -> str:
    """What a kubelet makes of a container's argument: $(NAME) is a variable's value, $$ a $."""
    return re.sub(
        r"\$\$|\$\((\w+)\)", lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]), text
    )


def test_no_word_becomes_shell_or_a_directive_in_a_batch_script(printer: str, tmp_path: Path) -> None:
    sent = job("slurm", arguments=("search", *AWKWARD))
    sent = replace(sent, settings=replace(sent.settings, cluster=replace(sent.settings.cluster, python=printer)))
    programs = tmp_path
    (programs / "scontrol").write_text("#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    (programs / "srun").write_text('#!/bin/sh\nwhile [ "$1" != ray ]; do shift; done\nexec "$@"\n')
    (programs / "ray").write_text('#!/bin/sh\necho "$*" >&2\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    for name in ("scontrol", "srun", "ray"):
        (programs / name).chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "123456", **variables}
    script = slurm.script(sent)
    arrived = subprocess.run(["bash"], input=script.encode(), capture_output=True, env=environment, check=True)
    assert words_in(arrived.stdout) == ["-m", "nas", "search", *AWKWARD]
    assert arrived.stderr.decode().startswith("symmetric-run --address node1:23456 --min-nodes 2 --num-cpus=8 ")
    head = script[: script.index("set -euo")]  # sbatch reads no directive below the first command
    assert "--nodes=1000" not in head and "#SBATCH --nodes=4\n" in head


# What is sent along with a Ray job


def test_the_package_is_the_engine_its_configuration_and_the_space(tmp_path: Path) -> None:
    files = [path.as_posix() for path in stage(packages_of("search_spaces.linear_attention.space"), tmp_path)]
    assert {"nas/cli.py", "nas_conf/config.yaml", "nas_conf/cluster/none.yaml", "nas/llm/prompts/editor.md"} <= set(
        files
    )
    assert {path.split("/")[0] for path in files} == {"nas", "nas_conf", "search_spaces"}
    assert not [path for path in files if "__pycache__" in path or path.endswith(".pyc") or "/." in path]
    assert sum((tmp_path / path).stat().st_size for path in files) < 5e6


def test_the_package_runs_by_itself(tmp_path: Path) -> None:
    stage(packages_of("search_spaces.linear_attention.space"), tmp_path)
    shown = subprocess.run(
        [sys.executable, "-m", "nas", "submit", *TO["ray_job"], "--dry-run"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0 and "- nas/cluster/package.py" in shown.stdout, shown.stderr


def test_a_space_of_ones_own_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "elsewhere" / "my_spaces"
    mine.mkdir(parents=True)
    (mine / "__init__.py").write_text("")
    (mine / "space.py").write_text("")
    (mine / ".env").write_text("SECRET=x")
    monkeypatch.syspath_prepend(str(mine.parent))
    files = stage(packages_of("my_spaces.space"), tmp_path / "staged")
    assert {path.as_posix() for path in files if path.parts[0] == "my_spaces"} == {
        "my_spaces/__init__.py",
        "my_spaces/space.py",
    }
    with pytest.raises(UserError, match="there is no package not_there here to send"):
        stage(packages_of("not_there.space"), tmp_path / "again")


# KubeRay


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["cluster.gpus=4", "execution=gpu", "cluster.spot=gke", "cluster.secret=keys"],
        ["cluster.spot=eks", "cluster.least_workers=2", "cluster.namespace=nas", "cluster.python=/opt/nas/bin/python"],
        ["cluster.spot=aks", "execution.workers=7"],
    ],
    ids=" ".join,
)
def test_the_manifest_is_one_that_kuberay_takes(overrides: list[str]) -> None:
    rayjob = yaml.safe_load(kuberay.shown(job("kuberay", *overrides)))
    config = autoscaled(rayjob)
    settings = settings_for(*TO["kuberay"], *overrides).cluster
    workers = config["available_node_types"]["workers"]
    assert (workers["min_workers"], workers["max_workers"]) == (settings.least_workers, settings.workers)
    assert workers["resources"]["CPU"] == settings.cpus and workers["resources"].get("GPU", 0) == settings.gpus
    assert config["available_node_types"]["headgroup"]["resources"]["CPU"] == 0, "no trial beside the driver"


def test_it_asks_for_as_many_trials_as_the_grown_cluster_takes() -> None:
    asked = ["cluster.workers=4", "cluster.cpus=8", "cluster.gpus=2", "execution.gpus_per_trial=0.5"]
    assert "execution.workers=16" in kuberay.entrypoint(job("kuberay", *asked))
    assert "execution.workers=3 " in kuberay.entrypoint(job("kuberay", *asked, "execution.workers=3")) + " "


def test_the_secret_is_the_drivers_alone() -> None:
    spec = kuberay.manifest(job("kuberay", "cluster.secret=keys"))["spec"]["rayClusterSpec"]
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert "keys" not in str(spec["workerGroupSpecs"])


@pytest.mark.parametrize("overrides", [["name=first"], ["resume=/results/first"]], ids=" ".join)
def test_all_nodes_see_the_results(overrides: list[str]) -> None:
    spec = kuberay.manifest(job("kuberay", *overrides))["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "results", "mountPath": "/results"}]
        assert pod["volumes"] == [{"name": "results", "persistentVolumeClaim": {"claimName": "nas"}}]


@pytest.mark.parametrize("overrides", [["store=s3://b/nas", "name=first"], ["resume=s3://b/nas/searches/first"]])
def test_with_a_store_nodes_share_no_folder(overrides: list[str]) -> None:
    sent = ["cluster=kuberay", "cluster.image=nas:1", "results_dir=/results", "cluster.store_secret=bucket", *overrides]
    asked = job_of(settings_for(*sent), sent, "now", "ab12", {})
    assert asked.results == "/results/first"
    spec = kuberay.manifest(asked)["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": "results", "mountPath": "/results"}]
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
        assert pod["volumes"] == [{"name": "results", "emptyDir": {}}]
    again = submit._how_to_go_on("kuberay/x", asked, sent)[-1]
    assert "resume=s3://b/nas/searches/first results_dir=/results    goes on" in again


def test_kubectl_gets_what_a_dry_run_shows(tool, capsys: pytest.CaptureFixture[str]) -> None:
    read = tool("kubectl", "rayjob.ray.io/x created")
    code, out, err = run(
        ["submit", *TO["kuberay"], "cluster.namespace=nas", "cluster.context=lab", "name=first"], capsys
    )
    assert (code, err) == (0, "")
    arguments, manifest = read()
    assert arguments == ["--context=lab", "--namespace=nas", "apply", "--filename=-"]
    name = yaml.safe_load(manifest)["metadata"]["name"]
    assert re.fullmatch("nas-first-[0-9a-f]{4}", name)
    where = "cluster.namespace=nas cluster.context=lab"
    assert f"sent as kuberay/{name}: its journal and its report will be in /results/first\n" in out
    assert f"  nas status kuberay/{name} {where}    how it stands\n" in out
    assert f"  nas logs kuberay/{name} --follow {where} " in out and f"  nas stop kuberay/{name} {where} " in out
    resume = next(line for line in out.splitlines() if "resume=" in line)
    assert "cluster=kuberay cluster.image=here/nas:1 cluster.claim=nas" in resume and "resume=/results/first " in resume


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "pending"),
        ({"jobDeploymentStatus": "Initializing"}, "pending"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, "pending"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "succeeded"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "exit code 2"}, "failed"),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING"}, "failed"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped"),
        ({"jobDeploymentStatus": "Suspended"}, "stopped"),
    ],
)
def test_how_a_rayjob_stands(status: dict[str, str], state: str) -> None:
    assert kuberay.standing_of(status).state == state


def test_a_rayjob_is_followed_and_stopped(tool, capsys: pytest.CaptureFixture[str]) -> None:
    read = tool("kubectl", '{"status": {"jobStatus": "FAILED", "message": "exit code 2\\u001b[31m"}}')
    assert run(["status", "kuberay/x"], capsys) == (1, "kuberay/x: failed (exit code 2 [31m)\n", "")
    assert read()[0] == ["get", "rayjob.ray.io/x", "--output=json"]
    read = tool("kubectl", "one\n\x1b[2Jtwo\n")
    assert run(["logs", "kuberay/x", "--follow", "cluster.namespace=n"], capsys) == (0, "one\n[2Jtwo\n", "")
    assert read()[0] == ["--namespace=n", "logs", "job/x", "--follow"]
    assert run(["stop", "kuberay/x"], capsys)[0] == 0
    assert read()[0] == ["delete", "rayjob.ray.io/x", "--wait=false"]


# SLURM


def test_the_batch_script_asks_for_what_was_asked_for() -> None:
    asked = {"workers": 3, "cpus": 16, "gpus": 2, "memory_gib": 64, "minutes": 90}
    names = [f"cluster.{key}={value}" for key, value in asked.items()]
    script = slurm.script(job("slurm", *names, "cluster.partition=gpu", "cluster.account=lab", "name=first"))
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
    assert options == {
        "job-name": "nas-first-ab12",
        "nodes": "3",
        "ntasks-per-node": "1",
        "cpus-per-task": "16",
        "gpus-per-node": "2",
        "mem": "64G",
        "time": "90",
        "partition": "gpu",
        "account": "lab",
    }
    assert "\n#SBATCH --exclusive\n" in script
    assert f"{sys.executable} -m nas search execution=ray" in script, "the installation that submits"
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_ray_has_the_options_that_the_script_gives_it() -> None:
    from ray.scripts.symmetric_run import symmetric_run

    assert {"--address", "--min-nodes"} <= {option for one in symmetric_run.params for option in one.opts}
    start = Path(find_spec("ray").origin).parent / "scripts" / "scripts.py"  # type: ignore[union-attr, arg-type]
    assert all(f'"{option}"' in start.read_text() for option in ("--num-cpus", "--disable-usage-stats"))


def test_sbatch_gets_what_a_dry_run_shows(tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = tool("sbatch", "4711;cluster\n")
    results = tmp_path / "a folder 100%"
    words = ["submit", "cluster=slurm", f"results_dir='{results}'", "name=first"]
    code, out, err = run(words, capsys)
    assert (code, err) == (0, "")
    arguments, script = read()
    log = f"--output={tmp_path}/a folder 100%%/slurm-%j.log"
    assert arguments == ["--parsable", f"--chdir={Path.cwd()}", log]
    assert script.startswith("#!/usr/bin/env bash\n#SBATCH --job-name=nas-first-")
    assert results.is_dir(), "SLURM makes no folder for its log"
    follow = next(line for line in out.splitlines() if line.startswith("  nas logs"))
    asked = shlex.split(follow.rpartition("    ")[0])[1:]
    assert asked[:3] == ["logs", "slurm/4711", "--follow"]
    (results / "slurm-4711.log").write_text("searching\n\x1b[31mred\n")
    tool("squeue", "COMPLETED\n")
    assert run(asked, capsys) == (0, "searching\n[31mred\n", "")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", "pending"),
        ("RUNNING", "running"),
        ("COMPLETED", "succeeded"),
        ("CANCELLED by 1000", "stopped"),
        ("CANCELLED+", "stopped"),
        ("TIMEOUT", "failed"),
        ("NODE_FAIL", "failed"),
        ("PREEMPTED", "failed"),
    ],
)
def test_how_a_slurm_job_stands(word: str, state: str) -> None:
    assert slurm.standing_of(word).state == state


def test_a_slurm_job_is_followed_and_stopped(tool, capsys: pytest.CaptureFixture[str]) -> None:
    read = tool("squeue", "RUNNING\n")
    assert run(["status", "slurm/7"], capsys) == (0, "slurm/7: running (RUNNING)\n", "")
    assert "--jobs=7" in read()[0]
    cancel = tool("scancel")
    assert run(["stop", "slurm/7"], capsys)[0] == 0 and cancel()[0] == ["7"]
    tool("squeue", "slurm_load_jobs error: Invalid job id specified\n", code=1)
    tool("sacct", "FAILED\n")
    assert run(["status", "slurm/7"], capsys) == (1, "slurm/7: failed (FAILED)\n", "")
    tool("sacct", "Slurm accounting storage is disabled\n", code=1)
    assert run(["status", "slurm/7"], capsys)[2].startswith("nas: SLURM no longer knows job 7: it has ended; nas logs")
    assert run(["logs", "slurm/7", "results_dir=/nowhere"], capsys)[2].startswith(
        "nas: there is no /nowhere/slurm-7.log yet: has the job begun"
    )


# What is not there


def test_a_ray_without_its_client_of_jobs_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.dashboard.modules.job.sdk.requests", None)  # as where ray[default] is not installed
    code, _, err = run(["status", "ray_job/x", "cluster.address=http://127.0.0.1:9"], capsys)
    assert (code, err) == (2, "nas: cluster=ray_job needs Ray's client of jobs: pip install 'nas[cluster]'\n")


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["submit", *TO["kuberay"]], "kubectl"),
        (["status", "kuberay/x"], "kubectl"),
        (["logs", "kuberay/x"], "kubectl"),
        (["submit", "cluster=slurm", "results_dir=results"], "sbatch"),
        (["status", "slurm/7"], "squeue"),
        (["stop", "slurm/7"], "scancel"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_a_missing_program_is_one_sentence(
    words: list[str], program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, err = run(words, capsys)
    kind = "slurm" if program != "kubectl" else "kuberay"
    assert (code, out) == (2, "")
    assert (
        err == f"nas: there is no {program} here, which cluster={kind} needs: install it, or submit from where it is\n"
    )


def test_what_a_program_refuses_is_its_last_line(tool, capsys: pytest.CaptureFixture[str]) -> None:
    tool("kubectl", "E0101 a long story\nE0101 again\nThe connection to the server was refused\n", code=1)
    assert run(["submit", *TO["kuberay"]], capsys) == (
        *(2, ""),
        "nas: kubectl refused: The connection to the server was refused\n",
    )
    tool("kubectl", 'Error from server (NotFound): jobs.batch "x" not found\n', code=1)
    assert "not found" in run(["logs", "kuberay/x"], capsys)[2]


@pytest.mark.parametrize("words", [["submit", *TO["ray_job"]], ["status", "ray_job/x"], ["logs", "ray_job/x"]])
def test_a_dashboard_that_is_not_there_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run([*words, "cluster.address=http://127.0.0.1:9"], capsys)
    assert (code, out) == (2, "")
    assert err == (
        "nas: there is no Ray dashboard at http://127.0.0.1:9: start Ray with one (ray[default]), or name another with "
        "cluster.address=http://HOST:8265\n"
    )
