"""The MLflow copy of a journal: complete, written once whatever happens, and never in the search's way."""

import csv
import io
import json
import logging
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from nas.tracking import MlflowTracker, rebuild, store
from nas.tracking.projection import CORE, Projection
from nas.tracking.store import Store, connect
from nas.tracking.story import Story
from nas.tracking.writes import Write
from nas.types import (
    Budget,
    Candidate,
    Certificate,
    Cost,
    Crashed,
    Fitness,
    Held,
    Rejected,
    Rung,
    Trial,
    trial_to_json,
)
from nas.ui import serve

PARENT = Candidate("x = 1\n", "baseline", proposer="hand", name="gla", motivation="The reference.")
CHILD = Candidate("x = 2\n", "decay", parents=(PARENT.id,), proposer="grammar", motivation="Forget *less*.")
LEAK = Candidate("x = 3\n", "erase key", parents=(CHILD.id,), proposer="grammar")
BROKEN = Candidate("x = 4\n", "decay", parents=("unknown",), proposer="grammar")
CERTIFICATE = Certificate({"causality": "no output moved | at all"}, 10.0, 20, 30, {"flops": 1.0}, "f00d")


def fitness(bits: float, step: int = 20) -> Fitness:
    return Fitness(bits, step, -bits, 0.01, 1e4, 10**9, 1e6, 1000, {"recall": 0.5})


def trained(name: str, candidate: Candidate, bits: float, purpose: str = "search") -> Trial:
    rungs = (Rung(10, bits + 0.5), Rung(20, bits))
    return Trial(name, candidate, purpose, Budget(20, 7), fitness(bits), Cost(1.0, 2.0, 3.0), rungs, CERTIFICATE)


def ask(index: int, name: str, candidate: Candidate, purpose: str, now: float) -> dict:
    record = trial_to_json(trained(name, candidate, 1.0))["candidate"]
    weights = {"decay": 0.25 + index / 100, "erase key": 0.75 - index / 100}
    island = None if purpose == "baseline" else 0
    return {"event": "ask", "index": index, "trial": name, "purpose": purpose, "candidate": record, "probability": 0.25,
            "weights": weights, "in_flight": {"decay": 1}, "family": "delta", "island": island,
            "time": now}  # fmt: skip


def rung(name: str, step: int, bits: float, now: float) -> dict:
    return {"event": "rung", "trial": name, "step": step, "bits_per_byte": bits, "train_seconds": 1.0,
            "tokens_per_second": 1e4, "time": now}  # fmt: skip


def told(trial: Trial, now: float) -> dict:
    credit = {"decay": {"reward": 0.1, "pulls": 1}}
    return {"event": "trial", **trial_to_json(trial), "credit": credit, "gain": 0.2, "time": now}


def journal() -> list[dict]:
    """A baseline, a better child that the scheduler stopped, a rejected one, a crashed one, one still in flight."""
    t0 = 1_800_000_000.0
    config = {"model": {"width": 64, "layers": [1, 2]}, "note": "n" * 900, "empty": {}, "odd/../key": None}
    crashed = replace(trained("t0004", BROKEN, 1.0), outcome=Crashed("diverged", "loss is NaN at step 12"))
    rejected = replace(
        trained("t0003", LEAK, 1.0), outcome=Rejected("causality", "output 17 moved"), certificate=None, rungs=()
    )
    events = [
        {"event": "search", "name": "first", "seed": 7, "config": config, "versions": {"jax": "0.10.2"}, "time": t0,
         "corpus": {"name": "python", "sha256": "ab" * 32, "train_bytes": 5}},
        ask(0, "t0001", PARENT, "baseline", t0 + 1),
        rung("t0001", 10, 3.0, t0 + 2),
        rung("t0001", 20, 2.5, t0 + 3),
        told(trained("t0001", PARENT, 2.5, "baseline"), t0 + 4),
        ask(1, "t0002", CHILD, "search", t0 + 5),
        ask(2, "t0003", LEAK, "search", t0 + 6),
        told(rejected, t0 + 7),
        ask(3, "t0004", BROKEN, "search", t0 + 8),
        rung("t0002", 10, 2.9, t0 + 9),
        {"event": "moon phase", "time": t0 + 9},
        rung("t0004", 10, 9.9, t0 + 10),
        told(crashed, t0 + 11),
        {"event": "resume", "time": t0 + 12},
        rung("t0002", 10, 2.9, t0 + 13),
        told(replace(trained("t0002", CHILD, 2.4), stopped=True), t0 + 14),
        ask(4, "t0005", replace(CHILD, source="x = 5\n"), "search", t0 + 15),
        {"event": "end", "reason": "budget", "best": "t0002", "time": t0 + 16, "summary": "# Found\n\nA better decay."},
    ]  # fmt: skip
    return json.loads(json.dumps(events))


def journal_with_held() -> list[dict]:
    """A baseline, and three candidates that were held: one accepted, one refused, one that waits."""
    t0 = 1_800_000_000.0
    events = [journal()[0], told(trained("t0001", PARENT, 2.5, "baseline"), t0 + 1)]
    for number, (name, candidate) in enumerate((("t0002", CHILD), ("t0003", LEAK), ("t0004", BROKEN))):
        whole = trained(name, candidate, 0.5 + number / 8)
        score = replace(whole.outcome, held_out_bits_per_byte=2.25, held_out_stderr=0.02)  # type: ignore[type-var]
        held = replace(whole, outcome=Held("leap", "it gains 2.0\n<b>bits</b>", score))
        now = t0 + 10 * number
        events += [ask(number, name, candidate, "search", now + 2), rung(name, 10, 1.0, now + 3), told(held, now + 4)]
    events += [
        {"event": "notice", "tripwire": "collapse", "reason": "36 of the last 40", "time": t0 + 50},
        {"event": "end", "reason": "trials", "best": None, "summary": "", "time": t0 + 60},
        {"event": "review", "trial": "t0002", "decision": "accept", "by": "Ada", "why": "it is real", "time": t0 + 70},
        {"event": "review", "trial": "t0003", "decision": "refuse", "by": "Ada", "why": "a <leak>", "time": t0 + 80},
        {"event": "review", "trial": "t0001", "decision": "refuse", "by": "Ada", "why": "no", "time": t0 + 81},
        {"event": "resume", "time": t0 + 90},
    ]
    return json.loads(json.dumps(events))


def call(work: str, number: int, now: float, role: str = "researcher", seconds: float = 2.0, **fields: object) -> dict:
    return {"event": "completion", "work": work, "call": number, "role": role, "model": "qwen3", "prompt": "ab" * 32,
            "text": f"answer {number} to {work}", "finish": "stop", "tokens_in": 100, "tokens_out": 20,
            "estimated": False, "dollars": 0.25, "seconds": seconds, "time": now, **fields}  # fmt: skip


def drawn(work: str, now: float, **fields: object) -> dict:
    plan = {"model": "qwen3", "kind": "diff", "inspirations": [], "notes": ["n07", "n12"],
            "lessons": ["decay per channel helps"], "prompt": "researcher"}  # fmt: skip
    return {"event": "draw", "work": work, "number": 1, "operator": "decay", "parents": [PARENT.id], "probability": 0.5,
            "weights": {}, "in_flight": {}, "repair_of": None, "plan": plan, "time": now, **fields}  # fmt: skip


def journal_with_llm() -> list[dict]:
    """Two proposals, of which one came to nothing, and the analysis of what the other became."""
    t0 = 1_800_000_000.0
    child = replace(CHILD, proposer="llm", predicted_gain=0.05)
    failed = {"event": "call_failed", "kind": "rate limit", "reason": "429: slow down", "again": True}
    messages = [{"role": "system", "content": "You design mixers."}, {"role": "user", "content": "Change the decay."}]
    events = [
        *journal()[:5],
        drawn("p0001", t0 + 10),
        drawn("p0002", t0 + 11, repair_of="t0001"),
        call("p0001", 0, t0 + 20, messages=messages),
        call("p0002", 0, t0 + 21, tokens_out=0, dollars=0.0, **failed),
        {"event": "unusable", "work": "p0001", "call": 0, "role": "researcher", "model": "qwen3", "kind": "diff",
         "reason": "no such lines", "time": t0 + 21},
        call("p0002", 0, t0 + 22),
        call("p0001", 1, t0 + 25, role="engineer", prompt="cd" * 32),
        {"event": "no_proposal", "cause": "model", "work": "p0002", "reason": "nothing of use", "time": t0 + 30},
        {**ask(1, "t0002", child, "search", t0 + 31), "work": "p0001", "stale": 0},
        rung("t0002", 10, 2.9, t0 + 32),
        call("p0001", 2, t0 + 33, role="judge"),
        {"event": "opinion", "work": "p0001", "model": "qwen3", "novelty": 7, "simplicity": 4, "because": "known parts",
         "time": t0 + 34},
        told(trained("t0002", child, 2.4), t0 + 35),
        call("a-t0002", 0, t0 + 38, role="analyst"),
        {"event": "analysis", "trial": "t0002", "by": "qwen3", "operator": "decay", "effect": "helps",
         "gain": 0.1, "predicted_gain": 0.05, "verdict": "confirmed", "text": "It forgets <less>.", "time": t0 + 39},
        {"event": "notice", "tripwire": "llm", "reason": "the cap llm.max_dollars=1 is reached", "time": t0 + 40},
        {"event": "end", "reason": "trials", "best": "t0002", "time": t0 + 50, "summary": "# Found"},
    ]  # fmt: skip
    return json.loads(json.dumps(events))


JOURNALS = {"usual": journal(), "held": journal_with_held(), "llm": journal_with_llm()}


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SQLITE_SECONDS", 0.1)


def snapshot(uri: str, experiment: str = "nas") -> dict[str, dict]:
    """All that the store holds, by trial ("" for the search's run), without MLflow's own ids."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    names = [run.data.tags.get("nas.trial", "") for run in runs]
    assert len(set(names)) == len(names), "a run was written twice"
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs} - {None}
    assert parents <= {run.info.run_id for run in runs}
    content = {}
    for name, run in zip(names, runs, strict=True):
        folder = Path(client.download_artifacts(run.info.run_id, ""))
        content[name] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "tags": {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId", "mlflow.user")},
            "params": run.data.params,
            "metrics": {
                key: sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            "artifacts": {path.name: path.read_text() for path in folder.iterdir()},
        }
    for name, found_of in traces(uri, experiment).items():
        content[f"trace {name}"] = found_of
    return content


def traces(uri: str, experiment: str = "nas") -> dict[str, dict]:
    """All traces, by work, without MLflow's own ids."""
    client = connect(uri)
    place = [client.get_experiment_by_name(experiment).experiment_id]
    runs = {run.info.run_id: run.data.tags.get("nas.trial", "") for run in client.search_runs(place)}
    linked = {
        trial: {trace.info.trace_id for trace in client.search_traces(locations=place, run_id=run)}
        for run, trial in runs.items()
    }
    found = client.search_traces(locations=place, max_results=500)
    works = [trace.info.tags["work"] for trace in found]
    assert len(set(works)) == len(works), "a trace was written twice"
    return {
        work: {
            "name": trace.info.tags["mlflow.traceName"],
            "state": trace.info.state.value,
            "times": (trace.info.request_time, trace.info.execution_duration),
            "tokens": trace.info.token_usage,
            "dollars": trace.info.cost["total_cost"],
            "tags": {key: value for key, value in trace.info.tags.items() if not key.startswith("mlflow.")},
            "previews": (trace.info.request_preview, trace.info.response_preview),
            "runs": sorted(trial for trial, ids in linked.items() if trace.info.trace_id in ids),
            "spans": sorted(
                (
                    {
                        "name": span.name,
                        "parent": span.parent_id is not None,
                        "times": (span.start_time_ns, span.end_time_ns),
                        "status": span.status.status_code.value,
                        "inputs": span.inputs,
                        "outputs": span.outputs,
                        "attributes": {k: v for k, v in span.attributes.items() if k != "mlflow.traceRequestId"},
                    }
                    for span in trace.data.spans
                ),
                key=lambda span: (span["parent"], span["times"]),
            ),
        }
        for work, trace in zip(works, found, strict=True)
    }


def points(run: dict, metric: str) -> list[tuple[int, float]]:
    return [(step, value) for step, value, _ in run["metrics"][metric]]


def test_a_search_as_a_reviewer_finds_it(uri: str, tmp_path: Path) -> None:
    assert rebuild(journal(), uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)

    search = runs[""]
    assert (search["name"], search["status"]) == ("first", "FINISHED")
    assert search["params"]["model.width"] == "64" and search["params"]["model.layers"] == "[1, 2]"
    assert len(search["params"]["note"]) == 500
    assert search["tags"].items() >= {"seed": "7", "corpus.sha256": "ab" * 32, "version.jax": "0.10.2"}.items()
    assert search["tags"]["best"] == "t0002" and "# Found" in search["tags"]["mlflow.note.content"]
    assert points(search, "best_bits_per_byte") == [(1, 2.5), (2, 2.5), (3, 2.5), (4, 2.4)]
    assert points(search, "trained") == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert points(search, "rejected") == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert points(search, "in_flight") == [(1, 0), (2, 1), (3, 1), (4, 0)]
    assert points(search, "weight.decay") == [(1, 0.25), (2, 0.27), (3, 0.28), (4, 0.28)]
    assert points(search, "reward.decay")[0] == (1, 0.1)

    good = runs["t0002"]
    assert (good["name"], good["status"]) == (f"t0002 decay {CHILD.id}", "FINISHED")
    assert points(good, "bits_per_byte") == [(10, 2.9), (20, 2.4)]
    assert points(good, "probe.recall") == [(20, 0.5)] and points(good, "gate_seconds") == [(20, 1.0)]
    assert {"tokens_per_second", "peak_bytes", "params", "flops_per_token", "score", "stderr", "train_seconds",
            "probability", "gain", "state_bytes"} <= set(good["metrics"])  # fmt: skip
    assert good["params"] == {
        "operator": "decay", "parents": PARENT.id, "proposer": "grammar", "seed": "7", "steps": "20",
        "family": "delta", "island": "0",
    }  # fmt: skip
    assert good["tags"].items() >= {
        "family": "delta", "island": "0", "rung": "20", "parent": PARENT.id, "parent.trial": "t0001",
        "certificate": "passed",
    }.items()  # fmt: skip
    assert runs["t0001"]["tags"]["island"] == "all" and "island" not in runs["t0001"]["params"]
    assert runs["t0003"]["tags"]["certificate"] == "causality" and runs["t0004"]["tags"]["rung"] == "10"
    assert good["tags"].items() >= {"outcome": "fitness", "stopped": "true", "purpose": "search"}.items()
    assert good["artifacts"]["candidate.py"] == CHILD.source
    assert "-x = 1\n+x = 2\n" in good["artifacts"]["parent.diff"]
    assert json.loads(good["artifacts"]["certificate.json"])["state_bytes"] == 30
    assert "no output moved &#124; at all" in good["tags"]["mlflow.note.content"]

    assert runs["t0003"]["status"] == "FINISHED" and runs["t0003"]["tags"]["rejected.check"] == "causality"
    assert runs["t0004"]["status"] == "FAILED" and runs["t0004"]["tags"]["crashed.cause"] == "diverged"
    assert runs["t0005"]["status"] == "KILLED" and runs["t0005"]["tags"]["outcome"] == "running"
    for name in ("t0003", "t0004", "t0005"):
        assert "bits_per_byte" not in runs[name]["metrics"]
    assert points(runs["t0004"], "rung_bits_per_byte") == [(10, 9.9)]


def verified(trial: str, mean: float, now: float, verdict: str = "better") -> dict:
    gain = {"mean": mean, "low": mean - 0.1, "high": mean + 0.2, "count": 3}
    return {"event": "verified", "trial": trial, "verdict": verdict, "p": 0.01, "gain": gain, "against": "gla",
            "time": now}  # fmt: skip


def written(*events: dict) -> tuple[list[Write], Write]:
    """All writes, and the last one of the search's page."""
    projection = Projection()
    writes = [write for event in events for write in projection.writes(event) if isinstance(write, Write)]
    return writes, [w for w in writes if w.trial is None and "mlflow.note.content" in w.tags][-1]


def test_every_trained_run_can_be_drawn_beside_the_others() -> None:
    seed_8 = replace(trained("t0006", CHILD, 2.3, "confirm"), budget=Budget(20, 8), certificate=None)
    repeat = [ask(5, "t0006", CHILD, "confirm", 1.0), told(seed_8, 2.0)]
    writes, _ = written(*journal()[:-1], *repeat)
    of_trained = [write for write in writes if write.tags.get("outcome") == "fitness"]
    assert [write.trial for write in of_trained] == ["t0001", "t0002", "t0006"]
    certified = {"state_bytes", "mixer.flops_per_token", "mixer.params", "growth.flops"}
    for write in of_trained:
        assert {*CORE, *certified} <= {name for name, *_ in write.metrics}, "a confirmation too"
        assert all(float(write.params[name]) >= 0 for name in ("seed", "steps"))


def test_the_search_shows_live_what_it_costs_and_has_found(uri: str, tmp_path: Path) -> None:
    events = [*journal(), verified("t0002", 0.15, 1_800_000_020.0), verified("t0001", 0.05, 1_800_000_021.0)]
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)
    search = runs[""]
    assert points(search, "cost.device_seconds") == [(1, 2.0), (2, 4.0), (3, 6.0), (4, 8.0)]
    assert points(search, "training_share")[-1] == (4, pytest.approx(2 / 3))
    assert points(search, "proposals_ahead")[-1] == (4, 0) and points(search, "cost.dollars")[-1] == (4, 0.0)
    assert {value for _, value in points(search, "best_verified_gain")} == {0.15}, "the larger of the two"
    assert points(search, "best_verified_gain.low")[-1] == (4, pytest.approx(0.05))
    page = search["tags"]["mlflow.note.content"]
    assert "ended (budget); 4 trials have ended" in page and "1 rejected (causality)" in page
    assert f"| t0002 | {CHILD.id} | decay | delta | 2.4000, stopped at 20 | none: no interval | better: +0.1500" in page
    assert "**Waits for a person:** verified as better" in page and "nas approve first TRIAL" in page
    lines = list(csv.DictReader(io.StringIO(search["artifacts"]["candidates.csv"])))
    assert [line["trial"] for line in lines] == ["t0001", "t0002", "t0003", "t0004"]
    line = lines[1]
    assert (line["verdict"], line["verified_gain"], line["bits_per_byte"], line["island"]) == (
        "better",
        "0.15",
        "2.4",
        "0",
    )
    assert (lines[2]["outcome"], lines[2]["detail"], lines[2]["bits_per_byte"]) == ("rejected", "causality", "")
    verdict = runs["t0002"]["tags"]
    assert verdict["verified.gain"] == "+0.1500 [+0.0500, +0.3500] (n=3)"
    assert "**Verdict:** better. On seeds and text that no trial had it gains" in verdict["mlflow.note.content"]


def test_a_number_has_its_interval_or_a_word_that_there_is_none() -> None:
    def repeat(index: int, seed: int, bits: float) -> list[dict]:
        trial = replace(trained(f"t001{index}", CHILD, bits, "confirm"), budget=Budget(20, seed))
        return [ask(10 + index, trial.id, CHILD, "confirm", 1.0), told(trial, 2.0)]

    _, none = written(*journal())
    _, one = written(*journal(), *repeat(0, 8, 2.3), {"event": "resume", "time": 1.0})
    _, two = written(*journal(), *repeat(0, 8, 2.3), *repeat(1, 9, 2.5), {"event": "resume", "time": 1.0})
    assert "| none: no interval | not verified |" in none.tags["mlflow.note.content"]
    assert "| 2.3000 at one: no interval | not verified |" in one.tags["mlflow.note.content"]
    assert "| 2.4000 &#91;1.1294, 3.6706&#93; (n=2) |" in two.tags["mlflow.note.content"]
    (row,) = [x for x in csv.DictReader(io.StringIO(two.artifacts["candidates.csv"])) if x["trial"] == "t0002"]
    assert row["fresh_seeds"] == "2" and float(row["fresh_low"]) == pytest.approx(1.1294, abs=1e-4)


def test_what_waits_for_a_person_is_on_the_searchs_page() -> None:
    _, page = written(*(event for event in journal_with_held() if event["event"] != "review"))
    assert "held: t0002, t0003, t0004. nas review first accept&#124;refuse TRIAL" in page.tags["mlflow.note.content"]
    _, page = written(*journal_with_held())
    assert "held: t0004. nas review" in page.tags["mlflow.note.content"]
    _, page = written(*journal())
    assert "**Waits for a person:** nothing" in page.tags["mlflow.note.content"]


def test_the_searchs_page_is_written_ever_less_often() -> None:
    events = journal()[:1]
    for number in range(400):
        candidate = Candidate(f"x = {number}\n", "decay", proposer="grammar")
        events += [ask(number, f"t{number:04d}", candidate, "search", 1.0),
                   told(trained(f"t{number:04d}", candidate, 2.0 + number / 1000), 2.0)]  # fmt: skip
    writes, page = written(*events)
    assert 30 < sum("candidates.csv" in write.artifacts for write in writes) < 60
    assert page.tags["mlflow.note.content"].count("| t0") == 10, "the best ten"


def test_no_cell_is_a_formula() -> None:
    bad = Candidate("x = 7\n", "=cmd|' /C calc'!A0", ("@SUM(1)",), "+1\x1b[31m", name="-1")
    _, page = written(*journal()[:1], {**ask(0, "t0001", bad, "search", 1.0), "family": "=1+1"},
                      told(trained("t0001", bad, 2.0), 2.0))  # fmt: skip
    (row,) = csv.DictReader(io.StringIO(page.artifacts["candidates.csv"]))
    assert [row[name][0] for name in ("operator", "family", "parents", "proposer")] == ["'"] * 4
    assert "\x1b" not in page.artifacts["candidates.csv"]


def test_files_beside_the_journal_are_shown() -> None:
    events = journal()[:5]
    events[4] = {**events[4], "files": {"log": "\x1b[31mred\x1b[0m <b>", "checkpoint": "/results/t0001/*/00000020"}}
    (write, *_) = [w for w in written(*events)[0] if w.tags.get("outcome") == "fitness"]
    assert write.artifacts["log.txt"] == "[31mred[0m <b>"
    assert write.tags["checkpoint"] == "/results/t0001/*/00000020"
    assert "checkpoint /results/t0001/&#42;/00000020" in write.tags["mlflow.note.content"]


@pytest.mark.parametrize("lines", [3, 200, 3000])
def test_what_is_also_a_file_makes_room_first(lines: int) -> None:
    change = "".join(f"-old {n}\n+new {n}\n" for n in range(lines))
    story = Story(
        {"operator": "decay", "motivation": "why " * 100}, parent=("ab" * 6, "t0001"), diff=change,
        rungs={10: 3.0, 20: 2.5}, outcome={"kind": "crashed", "cause": "raised", "reason": "deep\n" * lines},
        certificate={"checks": {f"check {n}": "seen " * 30 for n in range(7)}},
        analysis={"by": "qwen3", "text": "It forgets. " * 40},
    )  # fmt: skip
    page = story.markdown()
    assert len(page) < 7_900 and page.count("\n```") % 2 == 0, "no block of code is left open"
    for said in ("**Motivation:** why", "| 20 | 2.5000 |", "**Analysis** (by qwen3): It forgets", "crashed: raised"):
        assert said in page
    assert ("(cut: the whole is in parent.diff)" in page) == (lines > 200)
    assert "+new 0" in page and "**Certificate" in page


RANKING = {"bits_per_byte", "score", "stderr", "held_out_bits_per_byte", "tokens_per_second"}


def test_what_is_held_is_shown_and_ranks_nowhere(uri: str, tmp_path: Path) -> None:
    events = journal_with_held()
    undecided = [event for event in events if event["event"] != "review"]
    assert rebuild(undecided, uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)
    for name in ("t0002", "t0003", "t0004"):
        run = runs[name]
        assert run["status"] == "FINISHED"
        assert run["tags"].items() >= {"outcome": "held", "tripwire": "leap"}.items()
        assert not RANKING & run["metrics"].keys()
        assert points(run, "held/held_out_bits_per_byte") == [(20, 2.25)] and "gate_seconds" in run["metrics"]
        assert run["artifacts"]["reason.txt"] == "it gains 2.0\n<b>bits</b>"
        assert {"candidate.py", "certificate.json"} <= run["artifacts"].keys()
        assert "held (leap), and no score until a person accepts it" in run["tags"]["mlflow.note.content"]
    assert points(runs["t0002"], "held/bits_per_byte") == [(20, 0.5)]
    search = runs[""]
    assert search["tags"]["waiting"] == "3" and search["tags"]["notice.collapse"] == "36 of the last 40"
    assert points(search, "held") == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert points(search, "trained")[-1] == (4, 1) and points(search, "best_bits_per_byte")[-1] == (4, 2.5)


def test_a_decision_amends_the_run_that_it_is_about(uri: str, tmp_path: Path) -> None:
    assert rebuild(journal_with_held(), uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)
    accepted, refused, waiting = (runs[name] for name in ("t0002", "t0003", "t0004"))
    decision = {"outcome": "fitness", "review": "accept", "review.by": "Ada", "review.why": "it is real"}
    assert accepted["tags"].items() >= {**decision, "tripwire": "leap"}.items()
    assert points(accepted, "bits_per_byte") == [(10, 1.0), (20, 0.5)]
    assert points(accepted, "held_out_bits_per_byte") == [(20, 2.25)] and points(accepted, "score") == [(20, -0.5)]
    assert points(accepted, "gate_seconds") == [(20, 1.0)], "measured once"
    assert refused["tags"].items() >= {"outcome": "held", "review": "refuse", "review.why": "a <leak>"}.items()
    assert "review" not in waiting["tags"] and "review" not in runs["t0001"]["tags"]
    assert not RANKING & (refused["metrics"].keys() | waiting["metrics"].keys())
    assert runs[""]["tags"]["waiting"] == "1"
    latest = {
        name: max((step, time, value) for step, value, time in runs[""]["metrics"][name])[::2]
        for name in ("best_bits_per_byte", "trained", "held")
    }
    assert latest == {"best_bits_per_byte": (4, 0.5), "trained": (4, 2), "held": (4, 2)}


@pytest.mark.parametrize("events", JOURNALS.values(), ids=JOURNALS)
def test_writing_the_journal_again_changes_nothing(events: list[dict], uri: str, tmp_path: Path) -> None:
    rebuild(events, uri, tmp_path / "artifacts", "nas")
    before = snapshot(uri)
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 0
    assert snapshot(uri) == before


@pytest.mark.parametrize("events", JOURNALS.values(), ids=JOURNALS)
def test_after_a_crash_at_any_event_the_rest_is_written(events: list[dict], empty_store: Path, tmp_path: Path) -> None:
    def written(name: str, *journals: list[dict]) -> dict[str, dict]:
        shutil.copy(empty_store, tmp_path / name)
        for events in journals:
            assert rebuild(events, f"sqlite:///{tmp_path}/{name}", tmp_path / f"{name}-artifacts", "nas") == 0
        return snapshot(f"sqlite:///{tmp_path}/{name}")

    whole = written("whole", events)
    for cut in range(1, len(events), 3):
        assert written(f"cut{cut}", events[:cut], events) == whole


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_artifacts", "set_terminated", "search_runs",
                                  "log_spans", "start_trace", "link_traces_to_run"])  # fmt: skip
def test_a_call_that_fails_before_or_after_it_arrived_is_made_good(
    call: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.tracing.client import TracingClient

    events = journal_with_llm() if "trace" in call or "span" in call else journal()
    rebuild(events, uri, tmp_path / "artifacts", "reference")
    owner = TracingClient if call in ("log_spans", "start_trace") else MlflowClient
    genuine, calls = getattr(owner, call), []

    def flaky(*args, **kwargs):
        calls.append(call)
        if len(calls) == 1:
            raise OSError("no answer, and nothing was written")
        result = genuine(*args, **kwargs)
        if len(calls) == 3:
            raise OSError("no answer, but it was written")
        return result

    monkeypatch.setattr(owner, call, flaky)
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 0
    monkeypatch.undo()
    assert len(calls) >= 2
    assert snapshot(uri) == snapshot(uri, "reference")


def test_a_work_of_the_models_is_a_trace_with_its_calls(uri: str, tmp_path: Path) -> None:
    assert rebuild(journal_with_llm(), uri, tmp_path / "artifacts", "nas") == 0
    found = traces(uri)
    assert found.keys() == {"p0001", "p0002", "a-t0002"}
    t0 = 1_800_000_000
    proposal = found["p0001"]
    assert (proposal["name"], proposal["state"], proposal["runs"]) == ("p0001 decay", "OK", ["t0002"])
    assert proposal["tokens"] == {"input_tokens": 300, "output_tokens": 60, "total_tokens": 360}
    assert proposal["dollars"] == 0.75
    assert proposal["times"] == (1000 * (t0 + 18), 15_000)
    assert proposal["previews"] == (f"diff of {PARENT.id}", f"t0002 {CHILD.id}")
    assert proposal["tags"].items() >= {
        "work": "p0001", "operator": "decay", "model": "qwen3", "role": "researcher, engineer, judge",
        "prompt": f"{'ab' * 32}, {'cd' * 32}", "nas.search": "first",
    }.items()  # fmt: skip
    whole, first, second, judge = proposal["spans"]
    assert not whole["parent"] and first["parent"] and second["parent"] and judge["parent"]
    assert whole["inputs"]["notes"] == ["n07", "n12"] and whole["outputs"] == {"trial": "t0002", "candidate": CHILD.id}
    assert first["times"] == ((t0 + 18) * 10**9, (t0 + 20) * 10**9)
    assert [message["role"] for message in first["inputs"]["messages"]] == ["system", "user"]
    assert "Change the decay." in first["inputs"]["messages"][1]["content"]
    assert "answer 0 to p0001" in first["outputs"]["content"] and second["inputs"] == {"prompt": "cd" * 32}
    said = first["attributes"]
    assert (said["role"], said["prompt"], said["status"]) == ("researcher", "ab" * 32, "answered")
    assert (said["unusable"], said["unusable.reason"]) == ("diff", "no such lines")
    assert said["mlflow.llm.model"] == "qwen3" and said["mlflow.spanType"] == "CHAT_MODEL"
    assert said["mlflow.chat.tokenUsage"] == {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    assert said["mlflow.llm.cost"]["total_cost"] == 0.25

    nothing = found["p0002"]
    assert (nothing["state"], nothing["runs"]) == ("ERROR", [""]), "of the search itself"
    assert nothing["previews"][1] == "nothing of use"
    assert [span["status"] for span in nothing["spans"]] == ["ERROR", "ERROR", "OK"]
    assert found["a-t0002"]["runs"] == ["t0002"] and found["a-t0002"]["spans"][0]["outputs"]["verdict"] == "confirmed"


def test_a_candidate_of_a_model_tells_its_story(uri: str, tmp_path: Path) -> None:
    assert rebuild(journal_with_llm(), uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)
    run, search = runs["t0002"], runs[""]
    assert run["tags"].items() >= {
        "work": "p0001", "proposer": "llm", "model": "qwen3", "kind": "diff", "notes": "n07, n12",
        "predicted_gain": "0.05", "analysis.verdict": "confirmed", "opinion.novelty": "7", "opinion.simplicity": "4",
    }.items()  # fmt: skip
    assert "repair_of" not in run["tags"] and points(run, "predicted_gain") == [(0, 0.05)]
    note = run["tags"]["mlflow.note.content"]
    assert "+0.0500 bits per byte over the best parent; measured: +0.1000 (confirmed)" in note
    assert "**Analysis** (by qwen3): It forgets &#60;less&#62;." in note and "novelty 7, simplicity 4" in note
    assert "n07, n12" in note and "- decay per channel helps" in note and "trained to 2.4000" in note
    assert search["tags"]["notice.llm"] == "the cap llm.max_dollars=1 is reached"
    llm = {name: points(search, name) for name in search["metrics"] if name.startswith("llm.")}
    assert llm == {
        "llm.calls": [(2, 5)], "llm.failed": [(2, 1)], "llm.unusable": [(2, 1)], "llm.tokens": [(2, 580)],
        "llm.dollars": [(2, 1.0)],
    }  # fmt: skip


def test_a_resumed_search_writes_no_ended_trace_again(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracing.client import TracingClient

    events = journal_with_llm()
    rebuild(events, uri, tmp_path / "artifacts", "nas")
    before, logged = snapshot(uri), []
    monkeypatch.setattr(TracingClient, "log_spans", lambda self, place, spans: logged.extend(spans))
    rebuild(events, uri, tmp_path / "artifacts", "nas")
    assert [span.name for span in logged] == ["judge 2"], "the one call that came after the end of its work"
    assert snapshot(uri) == before


def test_a_later_search_of_the_same_name_has_its_own_run(uri: str, tmp_path: Path) -> None:
    rebuild(journal(), uri, tmp_path / "artifacts", "nas")
    later = [{**event, "time": event["time"] + 1e6} for event in journal()]
    rebuild(later, uri, tmp_path / "artifacts", "nas")
    client = connect(uri)
    runs = client.search_runs([client.get_experiment_by_name("nas").experiment_id])
    assert sum(run.data.tags.get("nas.search") == "first" for run in runs) == 12


HOSTILE = (
    "</code></pre><script>alert(1)</script> <img src=x onerror=alert(1)> ![i](http://evil/i.png) [l](javascript:x)\n"
    "# Heading\n```\n~~~~\n| a | b |\n|---|---|\n"
    "@someone www.evil.example \x1b[31mred\x1b[0m \x00 \ud800 **bold** _it_\n"
)


def hostile_words_of_models() -> list[dict]:
    """About t0001, which has ended: amended later, as it is in a search."""
    messages = [{"role": HOSTILE, "content": HOSTILE * 20}]
    judged = {"event": "opinion", "work": HOSTILE, "model": HOSTILE, "novelty": HOSTILE, "simplicity": HOSTILE}
    plan = dict.fromkeys(("model", "kind"), HOSTILE) | {name: [HOSTILE] * 9 for name in ("notes", "lessons")}
    candidate = ask(0, "t0001", Candidate("x = 1\n", HOSTILE), "search", 1.0)["candidate"]
    return [
        drawn(HOSTILE, 7.0, operator=HOSTILE, plan=plan),
        call(HOSTILE, 0, 8.0, role=HOSTILE, text=HOSTILE, model=HOSTILE, prompt=HOSTILE, messages=messages),
        {
            "event": "ask",
            "trial": "t0001",
            "work": HOSTILE,
            "candidate": {**candidate, "predicted_gain": 1},
            "time": 9.0,
        },
        {**judged, "because": HOSTILE * 50, "time": 9.0},
        {"event": "analysis", "trial": "t0001", "by": HOSTILE, "verdict": HOSTILE, "text": HOSTILE, "time": 9.0},
    ]


def test_hostile_text_stays_text(uri: str, tmp_path: Path) -> None:
    candidate = Candidate(f"'''{HOSTILE}'''\n", "de|cay/../<b>", (HOSTILE,), HOSTILE, HOSTILE, HOSTILE)
    trial = trained("t0001", candidate, 2.0)
    bad = Rejected(HOSTILE, HOSTILE * 200)
    events = [
        {**journal()[0], "name": HOSTILE, "config": {HOSTILE: HOSTILE, "..": 1, "": 2}, "versions": {HOSTILE: HOSTILE}},
        {**ask(0, "t0001", candidate, HOSTILE, 1.0), "weights": {HOSTILE: 0.5}},
        told(replace(trial, certificate=replace(CERTIFICATE, checks={HOSTILE: HOSTILE * 50})), 2.0),
        told(replace(trial, id=HOSTILE, outcome=bad), 3.0),
        told(replace(trial, id="t0003", outcome=Held(HOSTILE, HOSTILE * 200, fitness(2.0))), 4.0),
        {"event": "notice", "tripwire": HOSTILE, "reason": HOSTILE, "time": 5.0},
        {"event": "review", "trial": "t0003", "decision": "refuse", "by": HOSTILE, "why": HOSTILE * 200, "time": 6.0},
        *hostile_words_of_models(),
    ]
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 0
    runs = snapshot(uri)
    (trace,) = [runs.pop(name) for name in list(runs) if name.startswith("trace ")]
    for span in trace["spans"][1:]:
        for message in [*span["inputs"]["messages"], span["outputs"]]:
            html = MarkdownIt("commonmark", {"html": True}).render(message["content"])
            assert html.count("<pre>") == 1 and "<img" not in html and "<h1" not in html and "alert(1)" in html
    assert len(runs) == 4
    for run in runs.values():
        note = run["tags"]["mlflow.note.content"]
        assert len(note) < 8000 and "\x1b" not in note
        html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(note)
        for tag in ("<script", "<img", "<a ", "<h1", "<em>", "<td><", "<iframe"):
            assert tag not in html, (tag, html)
    assert "alert(1)" in runs["t0001"]["tags"]["mlflow.note.content"], "shown, not dropped"


def test_a_fence_cannot_be_ended_from_within() -> None:
    reason = "before\n`````\n# Heading <img src=x>\n"
    outcome = {"kind": "rejected", "check": "static", "reason": reason}
    html = MarkdownIt("commonmark", {"html": True}).render(Story(outcome=outcome).markdown())
    assert html.count("<pre>") == 1 and "<img" not in html and "<h1" not in html


@pytest.mark.parametrize("worse", [float("nan"), float("inf"), "NaN", None, True, 10**400, [1.0]])
def test_what_is_not_a_finite_number_is_never_a_metric(worse: object) -> None:
    def spoil(value):
        if isinstance(value, dict):
            return {key: spoil(item) for key, item in value.items()}
        return worse if isinstance(value, float) else value

    projection = Projection()
    for event in journal():
        spoiled = {key: spoil(value) if key != "time" else value for key, value in event.items()}
        for write in projection.writes(spoiled):
            for name, value, *_ in write.metrics:
                assert isinstance(value, float) and abs(value) < 1e12, name
                assert name not in {"score", "stderr", "gain", "weight.decay", "reward.decay", "best_bits_per_byte"}


@pytest.mark.parametrize("junk", [None, "junk", 3, [], ["junk"], {}, {"kind": 5}, {"a": {"b": None}}, "missing"])
def test_no_damage_to_one_field_is_an_error(junk: object) -> None:
    for events in JOURNALS.values():
        for place, event in enumerate(events):
            for key in event:
                damaged = {name: value for name, value in event.items() if name != key}
                if junk != "missing":
                    damaged[key] = junk
                projection = Projection()
                for other in [*events[:place], damaged, *events[place + 1 :]]:
                    projection.writes(other)


def test_a_store_that_cannot_be_written_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    started = time.monotonic()
    tracker = MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path, "nas", how_to_rebuild="run `nas x`")
    for event in journal():
        tracker.write(event)
    assert time.monotonic() - started < 0.5, "writing waits for nothing"
    time.sleep(1.2)  # several tries
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "cannot be written" in warnings[0].message and "\n" not in warnings[0].message
    assert tracker.close(timeout=20) == len(journal())
    assert time.monotonic() - started < 10, "a dead store is not waited for"
    assert f"{len(journal())} of {len(journal())} events" in caplog.records[-1].message
    assert "run `nas x`" in caplog.records[-1].message


def test_a_locked_store_is_written_once_it_is_free(uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    tracker = MlflowTracker(uri, tmp_path / "artifacts", "nas")
    for event in journal():
        tracker.write(event)
    while not caplog.records:
        time.sleep(0.05)
    lock.execute("ROLLBACK")
    assert tracker.close(60) == 0
    assert len(caplog.records) == 1 and "locked" in caplog.records[0].message
    assert len(snapshot(uri)) == 6


def test_a_store_that_hangs_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "apply", lambda self, write: time.sleep(3))
    tracker = MlflowTracker("sqlite:////nowhere", tmp_path, "nas")
    tracker.write(journal()[0])
    started = time.monotonic()
    assert tracker.close(timeout=0.2) == 1
    assert time.monotonic() - started < 1


def test_what_mlflow_refuses_for_good_costs_itself_alone(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Store.apply

    def refuse_one(self, write):
        if write.trial == "t0002":
            raise ValueError("never")
        genuine(self, write)

    monkeypatch.setattr(Store, "apply", refuse_one)
    events = journal()
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 3  # its ask, its rung and its end
    monkeypatch.undo()
    assert rebuild(events, uri, tmp_path / "artifacts", "nas") == 0
    assert len(snapshot(uri)) == 6


def test_a_password_in_the_address_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_password = "sqlite:///nas:secret@" + str(tmp_path / "no" / "such")
    (tmp_path / "no").write_text("")
    tracker = MlflowTracker(with_password.replace("sqlite:///", "postgresql://"), tmp_path, "nas")
    tracker.write(journal()[0])
    tracker.close(0.5)
    assert caplog.records and "secret" not in caplog.text


def test_the_import_is_light() -> None:
    code = "import sys, nas.tracking, nas.ui; sys.exit(bool({'mlflow', 'jax', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_server_shows_a_search_and_takes_one_over_http(uri: str, tmp_path: Path) -> None:
    rebuild(journal(), uri, tmp_path / "artifacts", "nas")
    port = free_port()
    code = "import sys; from nas.ui import serve; sys.exit(serve(sys.argv[1], sys.argv[2], port=int(sys.argv[3])))"
    command = [sys.executable, "-c", code, uri, str(tmp_path / "artifacts"), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        view = "#/experiments?workflowType=machine_learning"
        assert server.stdout.readline() == f"MLflow: http://127.0.0.1:{port}/{view} (Ctrl-C stops it)\n"
        address = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(address, timeout=20) as page:
            assert b"MLflow" in page.read()
        client = connect(uri)
        experiment = client.get_experiment_by_name("nas").experiment_id
        run = client.search_runs([experiment], "tags.`nas.trial` = 't0002'")[0].info.run_id
        with urllib.request.urlopen(f"{address}/get-artifact?path=candidate.py&run_uuid={run}", timeout=20) as file:
            assert file.read().decode() == CHILD.source
        rebuild(journal_with_llm(), uri, tmp_path / "artifacts", "llm")
        assert rebuild(journal_with_llm(), address, tmp_path / "elsewhere", "over http", timeout=60) == 0
        over_http = snapshot(address, "over http")
        assert over_http.keys() == snapshot(uri, "llm").keys() and "candidate.py" in over_http["t0002"]["artifacts"]
        assert traces(address, "over http") == traces(uri, "llm")
        assert not (tmp_path / "elsewhere").exists()
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        server.terminate()  # not kill: it takes its workers with it
        server.wait(30)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the workers are gone too"


def test_a_missing_store_and_a_taken_port_are_told_in_a_sentence(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(f"sqlite:///{tmp_path}/none.db", tmp_path) == 1
    assert "There is no MLflow store at" in capsys.readouterr().err
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert serve(uri, tmp_path, port=port) == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err
