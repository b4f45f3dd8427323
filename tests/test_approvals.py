"""Persons' decisions on verified architectures: who, what, when, why; in a chain that shows what was changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from common import SPACE
from fakes import fitness
from test_review import CHILD, HOSTILE, begun, ended

from nas.approvals import TRAIL, Decision, approved, decide, read_trail
from nas.cli import main
from nas.commands.search import _seeds
from nas.comparisons import baselines_of
from nas.errors import UserError
from nas.journal import Journal
from nas.seeded import seeded
from nas.settings import SearchSpaceSettings, Settings
from nas.types import Rejected, candidate_to_json

GLA = SPACE.baselines()["gla"]
DECISION = Decision(
    "approve",
    CHILD,
    Settings().search_space.module,
    "first",
    "t0001",
    "better",
    "Ada",
    "It holds at two widths.",
    {"source": "5e"},
)
VERIFIED = {
    "event": "verified",
    "trial": "t0001",
    "verdict": "better",
    "p": 0.01,
    "gain": {"mean": 0.1},
    "against": "gla",
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "first" / "journal.jsonl")
    for event in (
        begun(),
        *ended("t0000", GLA, fitness(2.0), "baseline"),
        *ended("t0001", CHILD, fitness(1.5)),
        *ended("t0002", replace(CHILD, source=CHILD.source + "Y = 2\n"), Rejected("cost", "quadratic")),
        VERIFIED,
    ):
        journal.append(event)
    journal.close()
    return tmp_path


def say(results: Path, *words: str) -> int:
    return main([*words, f"results_dir={results}", "tracking=none"])


def decided(results: Path, action: str, trial: str = "t0001") -> int:
    return say(results, action, "first", trial, "--by", "Ada", "--why", "It holds.")


def test_an_approval_says_who_what_why_and_what_was_seen(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (results / "first" / "verification.md").write_text("the report")
    assert decided(results, "approve") == 0
    assert "is approved as line 1" in capfd.readouterr().out
    (event,) = read_trail(results / TRAIL)
    assert (event["event"], event["by"], event["why"], event["verdict"]) == ("approve", "Ada", "It holds.", "better")
    assert event["seen"].keys() == {"source", "trial", "verdict", "verification.md"}
    assert approved([event]) == {CHILD.id: CHILD}, "whole, so that nothing else is needed to use it"


def test_a_roll_back_takes_the_approval_back_and_keeps_its_line(results: Path) -> None:
    assert [decided(results, action) for action in ("approve", "rollback", "reject", "approve")] == [0] * 4
    events = read_trail(results / TRAIL)
    assert [event["event"] for event in events] == ["approve", "rollback", "reject", "approve"]
    assert [len(approved(events[:count])) for count in range(5)] == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("before", "action", "trial", "sentence"),
    [
        ((), "rollback", "t0001", "is not approved: there is nothing to roll back"),
        (("approve",), "approve", "t0001", "is approved already"),
        (("approve",), "reject", "t0001", "is approved already: nas rollback takes it back"),
        ((), "approve", "t0000", "was not verified: nas verify"),
        ((), "approve", "t0002", "was not trained to a score"),
        ((), "approve", "t0099", "there is no finished trial t0099"),
    ],
)
def test_what_does_not_follow_is_refused(
    before: tuple[str, ...], action: str, trial: str, sentence: str, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for one in before:
        decided(results, one)
    assert decided(results, action, trial) == 2
    assert sentence in capfd.readouterr().err
    assert len(read_trail(results / TRAIL)) == len(before)


@pytest.mark.parametrize("words", [[], ["first"], ["first", "t0001"], ["first", "t0001", "--by", "Ada"]])
def test_no_decision_without_a_name_and_a_reason(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["approve", *words]) == 2
    assert "usage: nas approve SEARCH TRIAL --by NAME --why TEXT" in capfd.readouterr().err


def test_the_audit_shows_hostile_text_as_text(results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert say(results, "audit") == 0 and "Nothing was decided yet" in capfd.readouterr().out
    say(results, "approve", "first", "t0001", "--by", HOSTILE, "--why", HOSTILE)
    assert say(results, "audit") == 0
    shown = capfd.readouterr().out
    assert "[red]red[/red]" in shown and "\x1b" not in shown and "1 stand approved, head" in shown
    assert say(results, "audit", "all") == 2


# Later searches


def test_what_is_approved_is_a_baseline_of_later_searches() -> None:
    space = seeded(SPACE, [CHILD, GLA])
    name = f"approved_{CHILD.id}"
    assert space.baselines()[name].id == CHILD.id and space.baselines()[name].operator == "baseline"
    assert set(space.baselines()) - set(SPACE.baselines()) == {name}, "who is a baseline already is none twice"
    assert [*space.starters] == [*SPACE.starters, name]
    assert space.operators == SPACE.operators and space.family(CHILD.source) == SPACE.family(CHILD.source)
    assert seeded(SPACE, []) is SPACE


def test_a_search_begins_with_what_stands_and_goes_on_with_what_it_began_with(results: Path) -> None:
    settings = Settings(results_dir=str(results))
    assert _seeds(settings, []) == []
    decided(results, "approve")
    assert _seeds(settings, []) == [CHILD]
    assert _seeds(replace(settings, search_space=SearchSpaceSettings(approved=False)), []) == []
    decided(results, "rollback")
    assert _seeds(settings, []) == []
    assert _seeds(settings, [{"event": "search", "approved": [candidate_to_json(CHILD)]}]) == [CHILD]
    assert _seeds(settings, [{"event": "search"}]) == [], "a journal of before there were approvals"
    baselines = baselines_of(settings, seeded(SPACE, [CHILD]))
    assert baselines[-1].id == CHILD.id and len(baselines) == len(SPACE.starters) + 1


def test_approvals_are_of_one_space(results: Path) -> None:
    decided(results, "approve")
    events = read_trail(results / TRAIL)
    assert approved(events, Settings().search_space.module) and not approved(events, "another.space")


# The chain


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    for action in ("approve", "rollback", "approve"):
        decide(tmp_path / TRAIL, replace(DECISION, action=action))
    return tmp_path / TRAIL


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [lines[0].replace("Ada", "Eve"), *lines[1:]], 1),
        (lambda lines: [*lines[:1], lines[1].replace("rollback", "reject"), *lines[2:]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[0], lines[2], lines[1]], 2),
        (lambda lines: [*lines, lines[2]], 4),
        (lambda lines: [json.dumps({**json.loads(lines[0]), "extra": 1}), *lines[1:]], 1),
    ],
)
def test_what_was_changed_afterwards_is_found(damage: object, line: int, trail: Path) -> None:
    assert callable(damage)
    trail.write_text("\n".join([*damage(trail.read_text().splitlines()), ""]))
    with pytest.raises(UserError, match=rf"was changed: line {line} "):
        read_trail(trail)
    assert main(["audit", "verify", f"results_dir={trail.parent}"]) == 2
    with pytest.raises(UserError, match=r"was changed"):
        decide(trail, replace(DECISION, action="rollback"))


def test_a_line_that_was_changed_with_its_hash_breaks_the_next(trail: Path) -> None:
    from nas.approvals import _hash

    lines = [json.loads(line) for line in trail.read_text().splitlines()]
    lines[0]["by"] = "Eve"
    lines[0]["hash"] = _hash({name: value for name, value in lines[0].items() if name not in ("hash", "time")})
    trail.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"line 2 does not follow the one before it"):
        read_trail(trail)


def test_a_line_torn_by_a_kill_is_dropped(trail: Path) -> None:
    with trail.open("a") as file:
        file.write('{"event": "appr')
    assert len(read_trail(trail)) == 3
    assert decide(trail, replace(DECISION, action="rollback"))["number"] == 4
    assert len(read_trail(trail)) == 4
