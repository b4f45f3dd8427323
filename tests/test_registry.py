"""MLflow's registry is a copy of what was verified and decided: complete, written once, moved by persons alone."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from test_tracking import HOSTILE, ask, rung, told, trained

from nas import journal as journals
from nas.approvals import TRAIL, read_trail
from nas.cli import main
from nas.commands.folder import Folder
from nas.commands.shown import as_shown
from nas.journal import Event, Journal
from nas.settings import Settings, TrackingSettings
from nas.tracking import NotWritten, attach, register
from nas.tracking.store import connect
from nas.tracking.versions import models_of, name_of
from nas.types import Candidate

BASELINE = Candidate("x = 1\n", "baseline", proposer="hand", name="gla")
FIRST = Candidate("x = 2\n", "decay", parents=(BASELINE.id,), proposer="grammar", motivation="Forget *less*.")
SECOND = Candidate("x = 3\n", "erase key", parents=(FIRST.id,), proposer="grammar")
THIRD = Candidate("x = 4\n", "decay", parents=(SECOND.id, BASELINE.id), proposer="grammar")
MODEL = "linear_attention"


def verified(trial: str, verdict: str, mean: float, **fields: Any) -> Event:
    gain = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "count": 5}
    return {
        "event": "verified",
        "trial": trial,
        "verdict": verdict,
        "p": 0.01,
        "gain": gain,
        "against": "gla",
        **fields,
    }


def events(tracking: TrackingSettings = TrackingSettings()) -> list[Event]:  # noqa: B008
    """A baseline and three candidates in a line: two verified as better, one not."""
    begun = {"event": "search", "name": "first", "seed": 0, "config": asdict(Settings(tracking=tracking))}
    found: list[Event] = [begun, ask(0, "t0000", BASELINE, "baseline", 0.0)]
    found.append(told(trained("t0000", BASELINE, 2.5, "baseline"), 0.0))
    for number, candidate in enumerate((FIRST, SECOND, THIRD), 1):
        name = f"t{number:04d}"
        found += [
            {**ask(number, name, candidate, "search", 0.0), "family": "delta", "island": 1},
            rung(name, 10, 3.0, 0.0),
            told(trained(name, candidate, 2.5 - number / 10), 0.0),
        ]
    return [
        *found,
        {"event": "end", "reason": "trials", "best": "t0003", "summary": "# Found"},
        verified("t0001", "indistinguishable", 0.0),  # given anew with more seeds below
        verified("t0001", "better", 0.05),
        verified("t0002", "better", 0.15),
        verified("t0003", "indistinguishable", 0.2),
    ]


def write(folder: Path, events: list[Event]) -> None:
    journal = Journal(folder / "journal.jsonl")
    for event in events:
        journal.append(event)
    journal.close()


@pytest.fixture
def results(empty_store: Path, tmp_path: Path) -> Path:
    """A results folder with one verified search, and an empty store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write(tmp_path / "first", events())
    return tmp_path


def say(results: Path, *words: str) -> int:
    return main([*words, f"results_dir={results}"])


def decided(results: Path, action: str, trial: str, why: str = "It holds.") -> int:
    return say(results, action, "first", trial, "--by", "Ada", "--why", why)


def snapshot(results: Path) -> dict[str, Any]:
    """Trial -> its version, and alias -> trial."""
    client = connect(f"sqlite:///{results / 'mlflow.db'}")
    versions = client.search_model_versions(f"name = '{MODEL}'")
    by_number = {str(version.version): version.tags["trial"] for version in versions}
    assert len(set(by_number.values())) == len(versions), "a version was written twice"
    aliases = client.get_registered_model(MODEL).aliases
    return {
        "versions": {v.tags["trial"]: {"tags": v.tags, "text": v.description, "run": v.run_id} for v in versions},
        "aliases": {alias: by_number[str(number)] for alias, number in aliases.items()},
        "sources": {v.tags["trial"]: v.source for v in versions},
    }


def aliases(results: Path) -> dict[str, str]:
    found: dict[str, str] = snapshot(results)["aliases"]
    return found


def test_what_was_verified_is_a_version_with_all_that_a_person_decides_by(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert say(results, "audit", "registry") == 0
    assert f"{MODEL}: 3 versions, no champion, candidate is version" in capfd.readouterr().out
    found = snapshot(results)
    assert found["versions"].keys() == {"t0001", "t0002", "t0003"}
    assert found["aliases"] == {"candidate": "t0002"}, "the largest gain is no verdict"
    version = found["versions"]["t0002"]
    assert version["tags"].items() >= {
        "candidate": SECOND.id, "search": "first", "trial": "t0002", "verdict": "better", "family": "delta",
        "gain": "+0.1500 [+0.1000, +0.2000] (n=5)", "against": "gla", "certificate": "passed",
        "lineage": f"{FIRST.id}, {BASELINE.id}",
    }.items()  # fmt: skip
    assert found["versions"]["t0001"]["tags"]["verdict"] == "better", "the last verdict stands"
    client = connect(f"sqlite:///{results / 'mlflow.db'}")
    run = client.get_run(version["run"])
    assert run.data.tags["nas.trial"] == "t0002" and run.data.tags["verdict"] == "better"
    assert found["sources"]["t0002"] == f"runs:/{version['run']}/candidate.py"
    assert Path(client.download_artifacts(version["run"], "candidate.py")).read_text() == SECOND.source


def test_a_person_moves_the_aliases(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert decided(results, "approve", "t0002") == 0
    assert aliases(results) == {"champion": "t0002", "candidate": "t0001"}
    assert decided(results, "reject", "t0001", "too *slow*") == 0
    assert aliases(results) == {"champion": "t0002"}
    version = snapshot(results)["versions"]["t0001"]
    assert version["tags"]["decision"] == "reject" and version["tags"]["decision.why"] == "too *slow*"
    assert "**Decision:** rejected by Ada" in version["text"] and "too &#42;slow&#42;" in version["text"]
    client = connect(f"sqlite:///{results / 'mlflow.db'}")
    assert client.get_run(version["run"]).data.tags["decision"] == "reject"
    assert decided(results, "approve", "t0003") == 0
    assert aliases(results) == {"champion": "t0003"}
    assert decided(results, "rollback", "t0003") == 0
    assert aliases(results) == {"champion": "t0002"}, "the last that still stands"
    assert decided(results, "rollback", "t0002") == 0
    assert aliases(results) == {}, "what was taken back is no candidate again"
    assert "has not taken" not in capfd.readouterr().out


def test_it_is_written_anew_from_nothing_and_twice_is_once(results: Path, empty_store: Path) -> None:
    for action, trial in (("approve", "t0001"), ("reject", "t0003")):
        decided(results, action, trial)
    before = snapshot(results)
    assert say(results, "audit", "registry") == 0 and snapshot(results) == before
    shutil.copy(empty_store, results / "mlflow.db")
    shutil.rmtree(results / "mlartifacts")
    assert say(results, "audit", "registry") == 0
    after = snapshot(results)
    assert after["aliases"] == before["aliases"] == {"champion": "t0001", "candidate": "t0002"}
    for trial, version in after["versions"].items():
        assert (version["tags"], version["text"]) == tuple(before["versions"][trial][name] for name in ("tags", "text"))


def test_what_a_person_changed_in_mlflow_is_put_right(results: Path) -> None:
    decided(results, "approve", "t0001")
    client = connect(f"sqlite:///{results / 'mlflow.db'}")
    number = client.get_model_version_by_alias(MODEL, "champion").version
    other = client.get_model_version_by_alias(MODEL, "candidate").version
    client.set_registered_model_alias(MODEL, "champion", other)
    client.delete_registered_model_alias(MODEL, "candidate")
    client.set_model_version_tag(MODEL, number, "verdict", "worse")
    client.delete_model_version(MODEL, other)
    assert say(results, "audit", "registry") == 0
    found = snapshot(results)
    assert found["aliases"] == {"champion": "t0001", "candidate": "t0002"}
    assert found["versions"]["t0001"]["tags"]["verdict"] == "better"


def test_when_mlflow_fails_the_decision_stands_and_a_line_says_what_to_do(
    results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(results / "mlflow.db", results / "kept.db")
    (results / "mlflow.db").write_text("no database")
    assert decided(results, "approve", "t0002") == 0
    out = capfd.readouterr().out.splitlines()
    assert len(out) == 2 and "is approved as line 1" in out[0]
    assert "has not taken the registry" in out[1] and "nas audit registry" in out[1] and "decision stands" in out[1]
    assert [event["event"] for event in read_trail(results / TRAIL)] == ["approve"]
    assert say(results, "audit", "registry") == 1
    (results / "kept.db").rename(results / "mlflow.db")
    assert say(results, "audit", "registry") == 0
    assert aliases(results) == {"champion": "t0002", "candidate": "t0001"}


def test_with_no_tracking_nothing_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "first", events(TrackingSettings("none")))
    assert decided(tmp_path, "approve", "t0002") == 0
    assert say(tmp_path, "audit", "registry") == 0 and "nothing to write" in capfd.readouterr().out
    write(tmp_path / "second", events())
    assert say(tmp_path, "audit", "registry", "tracking=none") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [TRAIL, "first", "second"]


def test_a_damaged_search_costs_itself_alone(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (results / "broken").mkdir()
    (results / "broken" / "journal.jsonl").write_text('{"event": "verified"\n{}\n')
    assert say(results, "audit", "registry") == 1
    assert "broken is left out of the registry" in capfd.readouterr().out
    assert aliases(results) == {"candidate": "t0002"}


def test_a_review_is_in_mlflow_at_once(results: Path) -> None:
    from nas.types import Held, Trial, trial_to_json

    fourth = Candidate("x = 5\n", "decay", parents=(FIRST.id,))
    whole = trained("t0004", fourth, 0.5)
    held = Trial("t0004", fourth, "search", whole.budget, Held("leap", "too good", whole.outcome), whole.cost)  # type: ignore[arg-type]
    event = {"event": "trial", **trial_to_json(held), "credit": {}, "gain": None}
    write(results / "first", [ask(4, "t0004", fourth, "search", 0.0), event])
    assert say(results, "review", "first", "refuse", "t0004", "--by", "Ada", "--why", "a leak") == 0
    client = connect(f"sqlite:///{results / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("nas").experiment_id], "tags.review = 'refuse'")
    assert run.data.tags["nas.trial"] == "t0004" and run.data.tags["review.why"] == "a leak"


def test_a_report_lies_beside_the_searchs_run(results: Path) -> None:
    page, place = results / "report.html", (f"sqlite:///{results / 'mlflow.db'}", results / "mlartifacts", "nas")
    begun = journals.read(results / "first" / "journal.jsonl")[0]
    for text in ("once", "again"):
        page.write_text(text)
        attach(begun, page, *place)
    client = connect(place[0])
    (run,) = client.search_runs([client.get_experiment_by_name("nas").experiment_id])
    assert Path(client.download_artifacts(run.info.run_id, "report.html")).read_text() == "again"
    with pytest.raises(NotWritten, match=r"has not taken report\.html \("):
        attach(begun, page, f"sqlite:///{page}/mlflow.db", None, "nas")


def test_the_log_and_the_checkpoint_of_a_trial_are_told_and_no_link_is_followed(results: Path) -> None:
    folder = Folder(results / "first")
    trial, (event, *_) = folder.trial("t0001"), [e for e in events() if e["event"] == "trial" and e["id"] == "t0001"]
    assert as_shown(folder, event)["files"] == {"log": "", "checkpoint": ""}
    (trial / "train" / "checkpoints" / "00000020").mkdir(parents=True)
    (trial / "train.log").write_text("a" * 40_000 + "\x1b[31mend")
    (results / "secret").write_text("secret")
    (trial / "gate.log").symlink_to(results / "secret")
    files = as_shown(folder, event)["files"]
    assert files["log"].startswith("== train.log\na") and files["log"].endswith("end") and len(files["log"]) < 17_000
    assert files["checkpoint"] == str((trial / "train" / "checkpoints" / "00000020").resolve())


# What there should be


def test_names_of_models() -> None:
    assert name_of("search_spaces.linear_attention.space") == MODEL and name_of("mine") == "mine"
    assert name_of("space") == "space" and name_of("a/b:c") == "c" and name_of("") == "space"


def test_hostile_text_is_text_in_the_registry_too(results: Path) -> None:
    candidate = Candidate("x = 9\n", HOSTILE, parents=(HOSTILE,), motivation=HOSTILE)
    bad = [
        {"event": "search", "name": HOSTILE, "config": {"search_space": {"module": "x.linear_attention"}}, "time": 1.0},
        told(trained("t0001", candidate, 2.0), 2.0),
        verified("t0001", HOSTILE, 0.1, against=HOSTILE),
    ]
    (model,) = models_of([bad], [])
    (version,) = model.versions
    assert "<img" not in version.description and "\x1b" not in version.description and not model.aliases
    (line,) = register([bad], [], f"sqlite:///{results / 'mlflow.db'}", results / "mlartifacts", "nas")
    assert line == f"{MODEL}: 1 version, no champion, no candidate"


@pytest.mark.parametrize("junk", [None, "junk", 3, [], ["junk"], {}, {"a": {"b": None}}])
def test_no_damage_to_one_field_of_a_journal_is_an_error(junk: object) -> None:
    for place, event in enumerate(whole := events()):
        for key in event:
            if key != "event":
                models_of([[*whole[:place], {**event, key: junk}, *whole[place + 1 :]]], [])
