"""The LLM proposer as a person uses it: real Hydra, Ray, MLflow, training, HTTP; by a scripted team, by llama.cpp."""

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from common import SPACE
from endpoint import Endpoint, Reply, Request, empty, enormous, half, hang, not_json, status
from endpoint import text as says
from llama import Llama, llama_server  # noqa: F401  (the fixture)
from team import Team, role_of
from test_end_to_end import TINY, candidates, events, nas

from nas.space import NotApplicable
from nas.types import Candidate

KEY = "sk-nobody-must-read-this-0123456789"
LEAK = "        x = x - x.mean(axis=1, keepdims=True)\n"
OPERATORS = {operator.name: operator for operator in SPACE.operators}
LLM = [
    *("proposer=llm", "llm.models=[tiny]", "llm.key_env=NAS_TEST_KEY", "llm.retries=2", "llm.backoff_seconds=0.01"),
    *(
        "llm.timeout_seconds=2",
        "llm.concurrency=2",
        "llm.rewrite=0.5",
        "llm.prices=[{model: tiny, input: 1.0, output: 2.0}]",
    ),
]


def write(operator: str, sources: Sequence[str], rng: random.Random) -> str:
    """What the grammar would make of the parents: a real change of the kind that was asked for."""
    parents = [Candidate(source, "baseline") for source in sources]
    names = [operator, *rng.sample(sorted(OPERATORS), len(OPERATORS))]
    for name in names:
        if name in OPERATORS and OPERATORS[name].parents <= len(parents):
            try:
                return SPACE.mutate(OPERATORS[name], parents, rng).source
            except NotApplicable:
                continue
    raise AssertionError("no operator has anything to change")


def spoil(source: str) -> str:
    """Sees the future."""
    before, line, after = source.partition("        state = dict(state)\n")
    assert line
    return f"{before}{line}{LEAK}{after}"


def mend(source: str) -> str:
    """Without the leak; what was rejected for another reason, as a copy, is changed once more."""
    return source.replace(LEAK, "") if LEAK in source else write("decay", [source], random.Random(source))


class Misbehaving(Team):
    """A team whose answers are lost, broken or nonsense by turns, each kind once."""

    def __init__(self) -> None:
        super().__init__(write, broken=3, spoil=spoil, mend=mend)
        edit = {"search": "def nowhere(self):", "replace": "pass"}
        answer = {"motivation": "m", "because": "b", "predicted_gain": 0.1, "edits": None, "source": None}
        self._faults: list[Reply] = [
            *(status(429, {"Retry-After": "0"}), status(500), hang(10), half(), not_json(), half(chunked=True)),
            says(json.dumps({**answer, "edits": [edit]})),
            *(says("{not json"), says(json.dumps({**answer, "source": "class TokenMixer(:"})), empty()),
            *(says(json.dumps({**answer, "predicted_gain": None, "source": "x = 1"})), enormous(3_000_000)),
        ]
        self.sent = self._asked = 0

    def __call__(self, request: Request, number: int) -> Reply:
        """Every second proposal that is asked for is a fault, while there are any."""
        if role_of(request) == "proposal":
            with self._lock:
                self._asked += 1
                if self._asked % 2 == 0 and self._faults:
                    self.sent += 1
                    return self._faults.pop(0)
        return super().__call__(request, number)


@pytest.fixture(scope="module")
def team_search(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], text: list[str]
) -> Iterator[tuple[Path, str, Misbehaving]]:
    """(folder, output, team) of a whole search by a team that misbehaves."""
    results, team = tmp_path_factory.mktemp("results"), Misbehaving()
    with Endpoint(team) as endpoint:
        run = nas(
            *["search", *TINY, *text, *LLM, f"llm.base_url={endpoint.base_url}", "search.trials=5"],
            *["seed=1", "name=team", f"results_dir={results}", "search.confirm_seeds=0", "tripwire.least_leap=9"],
            *["meta=fixed", "+meta.weights.crossover=1000"],  # as soon as there are two to cross
            environment={**environment, "NAS_TEST_KEY": KEY},
        )
    assert run.returncode == 0, run.stdout + run.stderr
    yield results / "team", run.stdout, team


def of_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in events(folder) if event["event"] == kind]


def test_a_search_by_a_team_that_misbehaves(team_search: tuple[Path, str, Misbehaving]) -> None:
    folder, output, team = team_search
    assert "Traceback" not in output and events(folder)[-1]["reason"] == "trials"
    proposals = [event for event in of_kind(folder, "ask") if event["purpose"] == "search"]
    assert Counter(event["candidate"]["proposer"] for event in proposals)["llm"] >= 4
    outcomes = {event["id"]: event["outcome"]["kind"] for event in of_kind(folder, "trial")}
    trained = [event for event in proposals if outcomes[event["trial"]] == "fitness"]
    assert {event["candidate"]["proposer"] for event in trained} >= {"llm"}
    mended = [event for event in trained if not event["own_idea"]]
    assert mended, "what the gate rejected was mended, and trained"
    made = {event["work"]: event["plan"]["kind"] for event in of_kind(folder, "draw")}
    assert set(made.values()) == {"diff", "rewrite", "crossover", "repair"}
    assert {made[event["work"]] for event in trained if event["work"]} >= {"diff", "rewrite", "repair"}
    assert "crossover" in {event["candidate"]["operator"] for event in trained}, "as it was written, or mended"
    assert team.sent >= 4


def test_each_failure_is_counted_and_shown(team_search: tuple[Path, str, Misbehaving]) -> None:
    folder, output, team = team_search
    failed = Counter(event["kind"] for event in of_kind(folder, "call_failed"))
    unusable = Counter(event["kind"] for event in of_kind(folder, "unusable"))
    assert {"rate limit", "server", "timeout", "broken"} <= failed.keys()
    assert sum(failed.values()) + sum(unusable.values()) >= team.sent
    for kind, count in failed.items():
        assert f"{count} {kind}" in " ".join(output.split())


def test_the_key_is_nowhere(team_search: tuple[Path, str, Misbehaving]) -> None:
    folder, output, _ = team_search
    assert KEY not in output
    found = subprocess.run(["grep", "-rlaF", KEY, str(folder.parent)], capture_output=True, text=True)
    assert found.stdout == ""


def test_every_call_is_in_a_trace_of_its_candidates_run(team_search: tuple[Path, str, Misbehaving]) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    folder, _, _ = team_search
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "nas"]
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000)
    by_trial = {run.data.tags["nas.trial"]: run for run in runs if "nas.trial" in run.data.tags}
    traces = client.search_traces(locations=[experiment.experiment_id], max_results=500)
    works = {event["work"] for event in of_kind(folder, "completion")}
    assert works <= {trace.info.tags.get("work") for trace in traces}
    proposed = [event for event in of_kind(folder, "ask") if event["candidate"]["proposer"] == "llm"]
    for event in proposed:
        tags = by_trial[event["trial"]].data.tags
        assert tags["proposer"] == "llm" and tags["work"] == event["work"] and tags["model"] == "tiny"


def test_its_record_is_replayed_to_the_same_journal(
    team_search: tuple[Path, str, Misbehaving], environment: dict[str, str]
) -> None:
    folder, _, _ = team_search
    run = nas(
        *["search", "proposer=replay", f"proposer.path={folder}", f"results_dir={folder.parent}", "name=again"],
        *["execution.workers=1", "tracking=none"],
        environment=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Replay: identical to team in all" in run.stdout, run.stdout
    assert candidates(folder.parent / "again") == candidates(folder)


def test_garbage_of_a_real_model_becomes_no_candidate(
    llama: Llama, tmp_path: Path, environment: dict[str, str], text: list[str]
) -> None:
    run = nas(
        *[
            "search",
            *TINY,
            *text,
            "proposer=llm",
            f"llm.base_url={llama.base_url}",
            f"llm.models=[{llama.model}]",
        ],
        *["llm.max_tokens=300", "llm.retries=1", "llm.backoff_seconds=0.1", f"results_dir={tmp_path}", "name=garbage"],
        *["search.trials=3", "search.confirm_seeds=0", "tracking=none"],
        environment=environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    folder = tmp_path / "garbage"
    proposals = [event for event in of_kind(folder, "ask") if event["purpose"] == "search"]
    assert {event["candidate"]["proposer"] for event in proposals} == {"grammar"}
    assert of_kind(folder, "completion") and of_kind(folder, "no_proposal")
    assert events(folder)[-1]["reason"] == "trials" and "the grammar" in run.stdout
