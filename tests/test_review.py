"""`nas review`: what waits is shown as text, and a person's word is checked before it is in the journal."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from common import SPACE
from fakes import fitness

from nas import journal as journals
from nas.cli import main
from nas.commands.review import Decision, arguments, review
from nas.commands.search import Folder, _store_best, store_trial
from nas.errors import UserError
from nas.journal import Event, Journal
from nas.live import Progress
from nas.search import Search
from nas.settings import Settings, TrackingSettings
from nas.summary import summarize
from nas.types import Budget, Candidate, Certificate, Cost, Fitness, Held, Outcome, Rejected, Trial, trial_to_json

HOSTILE = "[red]red[/red] [/] [link=http://evil]here[/link] \x1b[2J\x1b]0;title\x07\nlast \x9b31m[bold]line[/]"
BASELINE = SPACE.baselines()["gla"]
CHILD = Candidate(BASELINE.source + "\n\nX = 1\n", "decay", (BASELINE.id,), "grammar")
OTHER = Candidate(BASELINE.source + "\n\nX = 2\n", HOSTILE, (BASELINE.id,), HOSTILE, name=HOSTILE)
FURTHER = Candidate(BASELINE.source + "\n\nX = 3\n", "decay", (BASELINE.id,), "grammar")
CERTIFICATE = Certificate({"causality": "no output moved"}, 10.0, 20, 30, {"flops": 1.0}, "f00d")
LEAPT = Held(
    "leap", "it gains 0.750 bits per byte", replace(fitness(1.25), held_out_bits_per_byte=1.5, held_out_stderr=0)
)


UNTRACKED = Settings(tracking=TrackingSettings("none"))


def begun() -> Event:
    return {"event": "search", "name": "first", "seed": 0, "config": asdict(UNTRACKED), "corpus": {}, "versions": {}}


def asked(trial: Trial) -> Event:
    candidate = trial_to_json(trial)["candidate"]
    return {"event": "ask", "trial": trial.id, "purpose": trial.purpose, "duplicate": False, "candidate": candidate,
            "budget": asdict(trial.budget), "weights": {}}  # fmt: skip


def ended(name: str, candidate: Candidate, outcome: Outcome, purpose: str = "search") -> list[Event]:
    trial = Trial(name, candidate, purpose, Budget(256), outcome, Cost(), certificate=CERTIFICATE)
    return [asked(trial), {"event": "trial", **trial_to_json(trial), "gain": None, "credit": {}}]


EVENTS = [
    begun(),
    *ended("t0000", BASELINE, replace(fitness(2.0), step=256), "baseline"),
    *ended("t0001", CHILD, LEAPT),
    *ended("t0002", OTHER, Held(HOSTILE, HOSTILE, fitness(1.0))),
    *ended("t0003", FURTHER, Rejected("cost", "quadratic")),
    asked(Trial("t0004", FURTHER, "search", Budget(256), LEAPT, Cost())),
    {"event": "notice", "tripwire": "collapse", "reason": f"36 of the last 40 are of one family: {HOSTILE}"},
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas"])


@pytest.fixture
def first() -> Path:
    """The folder of a search with two that wait."""
    folder = Path("results/first")
    write(folder, EVENTS)
    return folder


def write(folder: Path, events: list[Event]) -> None:
    journal = Journal(folder / "journal.jsonl")
    for event in events:
        journal.append(event)
    journal.close()


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["review", *words])
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def decide(trial: str, verdict: str = "accept", search: str = "results/first", **given: str) -> list[str]:
    given = {"by": "Ada", "why": "looked at it", **given}
    return [search, verdict, trial, "--by", given["by"], "--why", given["why"]]


def reviews(folder: Path) -> list[Event]:
    return [event for event in journals.read(folder / "journal.jsonl") if event["event"] == "review"]


# What is shown


@pytest.mark.parametrize("search", ["results/first", "first", "./results/first/"])
def test_what_waits_is_shown_with_what_a_person_needs(
    search: str, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run([search], capfd)
    assert code == 0 and err == ""
    lines = out.splitlines()
    begin = lines.index("t0001 is held: leap: it gains 0.750 bits per byte")
    assert lines[begin + 1 : begin + 5] == [
        f"  candidate      {CHILD.id}, search decay, by grammar",
        f"  family         {SPACE.family(CHILD.source)}",
        "  bits per byte  1.2500 (held out 1.5000); best baseline gla: 2.0000",
        "  source         results/first/trials/t0001/candidate.py",
    ]
    assert sum(line.endswith("candidate.py") for line in lines) == 2
    assert "Decide with: nas review results/first accept|refuse TRIAL --by NAME --why TEXT" in lines
    assert any("collapse: 36 of the last 40" in line for line in lines)


def test_hostile_text_is_text(first: Path, capfd: pytest.CaptureFixture[str]) -> None:
    by_hand = {"event": "review", "trial": "t0001", "decision": HOSTILE, "by": HOSTILE, "why": HOSTILE}
    write(first, [by_hand])
    _, out, _ = run(["first"], capfd)
    assert "[red]red[/red] [/] [link=http://evil]here[/link]" in out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert out.count("[bold]line[/]") == 8, "name, proposer, tripwire, reason; decision, by, why; and in the notice"


def test_where_nothing_waits_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    write(Path("results/calm"), EVENTS[:3])
    assert run(["calm"], capfd) == (0, "Nothing waits for a decision.\n", "")


def test_results_elsewhere_are_found(capfd: pytest.CaptureFixture[str]) -> None:
    write(Path("other/calm"), EVENTS[:3])
    assert run(["calm", "results_dir=other"], capfd)[0] == 0
    assert run(["calm"], capfd)[0] == 2


def test_a_running_search_can_be_looked_at(first: Path, capfd: pytest.CaptureFixture[str]) -> None:
    running = Journal(first / "journal.jsonl")
    assert run(["first"], capfd)[0] == 0
    running.close()


# A decision


@pytest.mark.parametrize(("verdict", "past"), [("accept", "accepted"), ("refuse", "refused")])
def test_a_decision_is_in_the_journal_and_shown(
    verdict: str, past: str, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, earlier = time.time(), journals.read(first / "journal.jsonl")
    code, out, err = run(decide("t0001", verdict, why="a = b, --by no leak"), capfd)
    assert code == 0 and err == "" and f"t0001 is {past}" in out and "nas search resume=results/first" in out
    *others, event = journals.read(first / "journal.jsonl")
    assert others == earlier and before - 1 <= event.pop("time") <= time.time()
    why = "a = b, --by no leak"
    assert event == {"event": "review", "trial": "t0001", "decision": verdict, "by": "Ada", "why": why}
    _, out, _ = run(["first"], capfd)
    assert re.search(rf"\n  t0001 {past} by Ada on \d{{4}}-\d\d-\d\d \d\d:\d\d: a = b, --by no leak\n", out)
    assert "t0001 is held" not in out and "t0002 is held" in out


@pytest.mark.parametrize("verdict", ["accept", "refuse"])
def test_the_search_takes_a_decision_in_when_it_goes_on(verdict: str, first: Path) -> None:
    review("first", UNTRACKED, Decision("t0001", verdict, "Ada", "looked"))
    search = Search(Settings(), SPACE, record=lambda event: None)
    search.replay(journals.read(first / "journal.jsonl"))
    assert [trial.id for trial in search.waiting()] == ["t0002"]
    best = search.best("search")
    assert isinstance(search.trials["t0001"].outcome, Fitness if verdict == "accept" else Held)
    assert (best.id if best else None) == ("t0001" if verdict == "accept" else None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "there is no search in nowhere, nor one of that name in results"),
        (["results"], "there is no search in results, nor one of that name in results"),
        (decide("t0001", search="nowhere"), "there is no search in nowhere, nor one of that name in results"),
        (decide("t0009"), "there is no trial t0009 in this search"),
        (decide(""), "there is no trial  in this search"),
        (decide("t0004"), "t0004 has not ended"),
        (decide("t0000"), "t0000 is not held: it ended as fitness"),
        (decide("t0003"), "t0003 is not held: it ended as rejected"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: list[str], sentence: str, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = sorted(Path().rglob("*"))
    assert run(words, capfd) == (2, "", f"nas: {sentence}\n")
    assert reviews(first) == [] and sorted(Path().rglob("*")) == files, "nothing is left behind"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--by", "Ada"],
        ["first", "accept"],
        ["first", "accept", "t0001"],
        ["first", "accept", "t0001", "--by", "Ada"],
        ["first", "accept", "t0001", "--why", "good"],
        ["first", "accept", "t0001", "--by", "Ada", "--why"],
        ["first", "accept", "t0001", "--by", " ", "--why", "good"],
        ["first", "approve", "t0001", "--by", "Ada", "--why", "good"],
        ["first", "accept", "t0001", "t0002", "--by", "Ada", "--why", "good"],
        ["first", "--by", "Ada", "--why", "good"],
        ["first", "--all"],
    ],
)
def test_what_is_missing_is_told_by_the_usage(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    usage = "usage: nas review SEARCH [accept|refuse TRIAL --by NAME --why TEXT] [overrides]"
    assert run(words, capfd) == (2, "", f"nas: {usage}\n")


def test_arguments_may_come_in_any_order() -> None:
    decision = Decision("t0001", "refuse", "Ada", "x=1 leaks")
    words = ["--why", "x=1 leaks", "first", "refuse", "results_dir=other", "t0001", "--by", "Ada"]
    assert arguments(words) == ("first", decision, ["results_dir=other"])


def test_the_second_word_on_a_trial_is_refused(first: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(decide("t0001", "refuse"), capfd)
    code, _, err = run(decide("t0001", "accept", by="Eve"), capfd)
    assert code == 2 and re.fullmatch(
        r"nas: t0001 was decided on already: refused by Ada on .{16}: looked at it\n", err
    )
    assert [event["decision"] for event in reviews(first)] == ["refuse"]


def test_while_the_search_runs_it_says_so(first: Path, capfd: pytest.CaptureFixture[str]) -> None:
    running = Journal(first / "journal.jsonl")
    code, out, err = run(decide("t0001"), capfd)
    assert (code, out) == (2, "") and err.startswith("nas: another process is running the search in ")
    running.close()
    assert reviews(first) == [] and run(decide("t0001"), capfd)[0] == 0


@pytest.mark.parametrize("content", [b"", b'{"event": "resume", "time": 1}\n', b'{"event": "sear'])
def test_a_journal_without_a_search_is_one_sentence(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = Path("results/torn/journal.jsonl")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for words in (["torn"], decide("t0001", search="torn")):
        code, out, err = run(words, capfd)
        assert (code, out) == (2, "") and err == "nas: results/torn/journal.jsonl has no search in it\n"


# What is beside the journal for the person


def contents(folder: Path) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_source_and_the_certificate_of_what_was_tried_are_beside_it(first: Path) -> None:
    folder = Folder(first)
    for event in EVENTS:
        store_trial(folder, event)
    kept = contents(folder.trial("t0001"))
    assert kept.keys() == {"candidate.py", "certificate.json"} and kept["candidate.py"] == CHILD.source
    assert Certificate(**json.loads(kept["certificate.json"])) == CERTIFICATE
    assert not folder.trial("t0004").exists() and {path.name for path in first.iterdir()} == {"journal.jsonl", "trials"}


def test_a_candidate_that_waits_there_with_a_link_is_not_followed(first: Path) -> None:
    """Its process could write in the trial's folder."""
    folder, target = Folder(first), Path("precious")
    target.write_text("kept")
    folder.trial("t0001").mkdir(parents=True)
    (folder.trial("t0001") / "candidate.py").symlink_to(target.absolute())
    (folder.trial("t0001") / "certificate.json").mkdir()
    for event in EVENTS:
        store_trial(folder, event)
    assert target.read_text() == "kept"
    copy = folder.trial("t0001") / "candidate.py"
    assert not copy.is_symlink() and copy.read_text() == CHILD.source


def test_what_has_no_certificate_and_cannot_be_encoded_is_kept_too(first: Path) -> None:
    event: dict[str, Any] = {**ended("t0009", Candidate("x = '\ud800'", "file"), Rejected("static", "no"))[1]}
    store_trial(Folder(first), {**event, "certificate": None})
    assert contents(Folder(first).trial("t0009")) == {"candidate.py": "x = '\\ud800'"}


def test_the_best_has_its_certificate_beside_it(first: Path) -> None:
    review("first", UNTRACKED, Decision("t0001", "accept", "Ada", "looked"))
    search = Search(Settings(), SPACE, record=lambda event: None)
    search.replay(journals.read(first / "journal.jsonl"))
    _store_best(Folder(first), summarize(search))
    assert (first / "best.py").read_text() == CHILD.source
    assert Certificate(**json.loads((first / "best.certificate.json").read_text())) == CERTIFICATE


def test_the_live_view_and_the_search_agree_on_what_waits(first: Path) -> None:
    review("first", UNTRACKED, Decision("t0002", "refuse", "Ada", "looked"))
    progress, search = Progress(24), Search(Settings(), SPACE, record=lambda event: None)
    events = journals.read(first / "journal.jsonl")
    search.replay(events)
    for event in events:
        progress.take(event)
    assert list(progress.waiting) == [trial.id for trial in search.waiting()] == ["t0001"]


def test_a_search_that_cannot_be_found_is_an_error_of_the_person() -> None:
    with pytest.raises(UserError, match="there is no search in x"):
        review("x", UNTRACKED)
