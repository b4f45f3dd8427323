"""`nas verify` and `nas null` with real training, at a size at which everything takes seconds."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from common import SPACE

from nas import journal as journals
from nas.cli import main
from nas.commands.discovery import arguments as discovery_arguments
from nas.commands.meta import prior_of
from nas.commands.null import _names, renamed
from nas.commands.verify import arguments
from nas.configuration import as_recorded, composed, settings_of
from nas.errors import UserError
from nas.journal import Journal
from nas.meta import POLICIES
from nas.parsing import parse
from nas.sandbox import Box
from nas.search import Search, rung_steps
from nas.settings import (
    CorpusSettings,
    ExecutionSettings,
    MetaSettings,
    ModelSettings,
    SearchSettings,
    SearchSpaceSettings,
    Settings,
    TaskSettings,
    TrackingSettings,
    TrainSettings,
)
from nas.tasks.corpus import prepare
from nas.tracking.store import connect
from nas.trial import make_spec, run_trial
from nas.types import Cost, Fitness, Rung, Trial, outcome_from_json, source_id

TINY = ["verify=tiny", "execution.workers=1", "verify.windows=4", "verify.grid=[1.0]", "verify.ablations=1"]


@pytest.fixture(scope="module")
def searched(text_folder: Path, box: Box, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search: one baseline and two candidates, trained for real and told by hand."""
    results = tmp_path_factory.mktemp("results")
    settings = Settings(
        results_dir=str(results),
        search=SearchSettings(trials=1, confirm_seeds=0, noise_seeds=0),
        search_space=SearchSpaceSettings(baselines=("gated_deltanet",)),
        model=ModelSettings(16, 2, 1),
        train=TrainSettings(steps=6, batch=2, time=32, steps_per_dispatch=3),
        task=TaskSettings(validation_windows=4),
        corpus=CorpusSettings("text", str(text_folder)),
        execution=ExecutionSettings(workers=1),
        tracking=TrackingSettings("none"),
    )
    corpus = prepare(settings.corpus, results / ".cache")
    journal = Journal(results / "first" / "journal.jsonl")
    search = Search(settings, SPACE, lambda event: journal.append(event) and None)
    search.note({"event": "search", "name": "first", "seed": 0, "config": asdict(settings), "corpus": asdict(corpus)})
    while assignment := search.ask():
        spec = make_spec(assignment.candidate.source, settings, corpus, gate=None, rungs=rung_steps(settings),
                         floored=False, contends_below=None, seed=0, folder=results / assignment.trial)  # fmt: skip
        *_, last = run_trial(spec, box)
        outcome = outcome_from_json(last["outcome"])
        assert isinstance(outcome, Fitness), outcome
        search.tell_rung(assignment.trial, Rung(6, outcome.bits_per_byte))
        a = assignment
        search.tell(Trial(a.trial, a.candidate, a.purpose, a.budget, outcome, Cost(), search.rungs_of(a.trial)))
    journal.close()
    return results / "first"


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words)
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def test_a_search_is_verified_and_going_on_measures_nothing_twice(
    searched: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, empty_store: Path
) -> None:
    words = ["verify", str(searched), "--beside", str(searched), *TINY, f"verify.copy_to={tmp_path}"]
    code, out, err = run(words, capfd)
    assert code == 0, err
    report = json.loads((searched / "verification.json").read_text())
    (verdict,) = report["verdicts"]
    assert verdict["verdict"] in ("better", "indistinguishable", "worse") and verdict["trial"] == "t0001"
    primary = verdict["comparisons"][0]
    assert primary["gain"]["count"] == 2 and primary["by_seed"].keys() == {str(seed) for seed in report["seeds"]}
    assert 0 not in report["seeds"], "the seed that chose is no evidence"
    roles = {row["role"]: row for row in report["rows"]}
    assert roles["baseline"]["bits_per_byte"]["mean"] < 9 and roles["contender"]["params"] > 0
    assert [row["name"] for row in report["rows"] if row["role"] == "baseline"] == ["gated_deltanet"]
    (ablation,) = report["ablations"]
    assert ablation["effect"] == primary["gain"], "without its one change it is its parent, the baseline"
    assert [curve["records"][-1]["gain"] is not None for curve in report["curves"]] == [True, True]
    assert (searched / "verification.svg").read_text().startswith("<?xml")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".md", ".svg"]
    assert "| contender | verdict |" in out
    told = [event["event"] for event in journals.read(searched / "journal.jsonl")]
    assert told.count("verified") == 1 and told.count("ablation") == (ablation["effect"] is not None)

    shutil.copy(empty_store, searched.parent / "mlflow.db")
    code, out, err = run([*words, "tracking=mlflow"], capfd)
    assert code == 0 and "results in" in out, "they were there"
    again = json.loads((searched / "verification.json").read_text())
    assert again["verdicts"] == report["verdicts"] and again["ablations"] == report["ablations"]
    assert [event["event"] for event in journals.read(searched / "journal.jsonl")] == told, "and are told once"
    client = connect(f"sqlite:///{searched.parent / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'linear_attention'")
    assert (version.tags["trial"], version.tags["verdict"]) == ("t0001", verdict["verdict"])
    run_of_trial = client.get_run(version.run_id)
    assert run_of_trial.data.tags["verdict"] == verdict["verdict"] and run_of_trial.data.tags["family"]
    files = {file.path for file in client.list_artifacts(run_of_trial.data.tags["mlflow.parentRunId"])}
    assert {"verification.md", "verification.svg", "candidates.csv"} <= files

    code, out, err = run(["discovery", str(searched), f"results_dir={tmp_path}"], capfd)
    assert code == 0 and out == f"written to {tmp_path}/discovery.md\n", err
    assert (tmp_path / "discovery.svg").read_bytes() == (searched / "verification.svg").read_bytes()
    page = (tmp_path / "discovery.md").read_text()
    winner = next(e["candidate"] for e in journals.read(searched / "journal.jsonl") if e.get("id") == "t0001")
    assert winner["source"].strip() in page and f"\n    nas verify {searched}" in page
    assert f"**{verdict['verdict']}**" in page and f"| {winner['operator']} | 1 |" in page
    searching = next(line for line in page.splitlines() if line.startswith("    nas search "))
    told_again = settings_of(
        composed([*shlex.split(searching)[2:], f"results_dir={searched.parent}", "notes_dir=notes"])
    )
    recorded = as_recorded(journals.read(searched / "journal.jsonl")[0]["config"])
    assert replace(told_again, name=None, notes_dir=recorded.notes_dir) == replace(recorded, name=None)


def test_a_discovery_needs_a_verification(searched: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "bare", ignore=shutil.ignore_patterns("verification.*"))
    code, _, err = run(["discovery", str(tmp_path / "bare")], capfd)
    assert code == 2 and "is not verified yet: nas verify bare" in err
    with pytest.raises(UserError, match="usage: nas discovery SEARCH"):
        discovery_arguments([])


def test_what_can_not_be_verified_is_one_sentence(
    searched: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["verify", "nowhere"], capfd)[::2] == (
        2, "nas: there is no search in nowhere, nor one of that name in results\n",
    )  # fmt: skip
    begun = journals.read(searched / "journal.jsonl")[0]

    def copied(name: str, change: Callable[[dict], None], whole: bool = False) -> str:  # type: ignore[type-arg]
        journal = Journal(tmp_path / name / "journal.jsonl")
        event = json.loads(json.dumps(begun))
        change(event)
        for each in [event, *(journals.read(searched / "journal.jsonl")[1:] if whole else [])]:
            journal.append(each)
        journal.close()
        return str(tmp_path / name)

    nothing = copied("nothing", lambda event: None)
    code, _, err = run(["verify", nothing, *TINY], capfd)
    assert code == 2 and "no candidate of" in err and "was trained to the end" in err and err.count("\n") == 1
    changed = copied("changed", lambda event: event["corpus"].update(sha256="0" * 64), whole=True)
    code, _, err = run(["verify", changed, *TINY], capfd)
    assert code == 2 and "the corpus is no longer that of changed" in err
    other = copied("other", lambda event: event["config"]["train"].update(steps=7), whole=True)
    code, _, err = run(["verify", str(searched), "--beside", other, *TINY], capfd)
    assert code == 2 and "other has another train than first" in err
    code, _, err = run(["verify", str(searched), "train.steps=9"], capfd)
    assert code == 2 and "train.steps=9 can't be changed in a verification" in err


def test_the_command_line() -> None:
    assert arguments(["a"]) == ("a", [], [])
    assert arguments(["a", "--beside", "b", "c", "verify.seeds=3"]) == ("a", ["b", "c"], ["verify.seeds=3"])
    for words in ([], ["a", "b"], ["a", "--beside"], ["a", "--other"], ["--beside", "b"]):
        with pytest.raises(UserError, match="usage: nas verify"):
            arguments(words)


def test_a_copy_differs_in_names_alone() -> None:
    for name in ("linear_attention", "retnet", "gated_deltanet"):
        source = SPACE.baselines()[name].source
        copy = renamed(source, 7)
        assert source_id(copy) != source_id(source)
        assert len(_names(parse(copy))) == len(_names(parse(source)))
        assert copy.count("n7_") > 10 and renamed(source, 7) == copy != renamed(source, 8)


def test_what_a_search_has_learned_is_exported_and_policies_are_compared(
    searched: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "posterior.json"
    assert main(["meta", "export", str(searched), str(file)]) == 0
    assert "nas search meta.prior=" in capfd.readouterr().out
    assert prior_of(MetaSettings(prior=str(file))) == prior_of(MetaSettings(prior=str(searched)))
    assert main(["meta", "compare", str(searched)]) == 0
    out = capfd.readouterr().out
    assert "doubly robust" in out and all(kind in out for kind in POLICIES)
