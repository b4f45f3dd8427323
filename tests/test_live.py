"""What a person sees meanwhile: lines or a live view, whatever a candidate is called or says."""

import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeSpace, fitness, make_settings, simulate, source_of, start
from rich.console import Console

from nas import live
from nas.journal import Event
from nas.live import LiveView, Progress, describe, title
from nas.types import Budget, Candidate, Cost, Crashed, Held, Outcome, Rejected, Trial, trial_to_json

HOSTILE = "[red]red[/red] [/] [link=http://evil]here[/link] \x1b[2J\x1b]0;title\x07\nlast \x9b31m[bold]line[/]"


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """Those of a search with every kind of outcome, copies among them: its children are not looked at before."""
    search, events = start(make_settings(trials=40, draws=1), FakeSpace(values=4))
    simulate(search, 3)
    return events


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    clock = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    yield clock


def ended(
    outcome: Outcome, name: str = "", operator: str = "decay", purpose: str = "search", stopped: bool = False
) -> Event:
    candidate = Candidate(source_of((2, 2, 2, 2)), operator, name=name)
    trial = Trial("t0007", candidate, purpose, Budget(40), outcome, Cost(), stopped=stopped)
    return json.loads(json.dumps({"event": "trial", **trial_to_json(trial), "credit": {}, "gain": None}))  # type: ignore[no-any-return]


ASK = {
    "event": "ask",
    "trial": "t0008",
    "purpose": "search",
    "candidate": ended(fitness(2.0))["candidate"],
    "weights": {},
}


def view(terminal: bool = False, trials: int = 40) -> tuple[LiveView, Any]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, height=60, highlight=False)
    return LiveView("first", trials, console), file


def drawn(view: LiveView) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=60)
    console.print(view._render())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# Lines


def test_elsewhere_than_in_a_terminal_each_result_is_a_line(events: list[Event]) -> None:
    shown, file = view()
    with shown:
        for event in events:
            shown.write(event)
    lines = file.getvalue().splitlines()
    told = [event for event in events if event["event"] == "trial"]
    assert len(lines) == len(told)
    for line, event in zip(lines, told, strict=True):
        assert re.match(rf"\d\d:\d\d  {event['id']}  {event['purpose']} ", line)
        assert line.endswith(describe(event)) and "\x1b" not in line


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ended(fitness(2.03125)), "2.031 bits per byte"),
        (ended(fitness(2.03125, step=10), stopped=True), "2.031 bits per byte, stopped at step 10"),
        (ended(Rejected("causality", "output 17 moved\n  when input 40 changed")),
         "rejected by causality: output 17 moved when input 40 changed"),
        (ended(Crashed("raised", "Traceback:\n  File x\nValueError: bad\n")), "crashed, raised: ValueError: bad"),
        (ended(Crashed("raised", "Traceback:\n  File x\nmod.BadError: no\n-----\nFor simplicity, JAX ...")),
         "crashed, raised: mod.BadError: no"),
        (ended(Crashed("diverged", "not finite\nat step 3")), "crashed, diverged: at step 3"),
        (ended(Crashed("killed", "")), "crashed, killed: "),
        (ended(Crashed("killed", "\n \n")), "crashed, killed: "),
        (ended(Rejected("cost", "")), "rejected by cost: "),
        (ended(Held("leap", "it gains\n0.5", fitness(0.5))), "held: leap: it gains 0.5"),
    ],
)  # fmt: skip
def test_an_outcome_is_one_line(event: Event, line: str) -> None:
    assert describe(event) == line


LONG = [Rejected("cost", "x" * 5000), Crashed("raised", "y" * 5000), Held("leap", "z" * 5000, fitness(1.0))]


@pytest.mark.parametrize("outcome", LONG)
def test_a_long_reason_is_cut(outcome: Outcome) -> None:
    assert len(describe(ended(outcome))) < 140 and describe(ended(outcome)).endswith("...")


def test_a_title_says_what_it_is() -> None:
    assert re.fullmatch(r"search decay \w{12}", title(ended(fitness(2.0))))
    assert re.fullmatch(r"baseline gla \w{12}", title(ended(fitness(2.0), name="gla", purpose="baseline")))


HOSTILE_EVENTS = [
    ended(outcome, name, operator)
    for outcome in (
        Rejected(HOSTILE, HOSTILE),
        Crashed(HOSTILE, HOSTILE),
        Held(HOSTILE, HOSTILE, fitness(2.0)),
        fitness(2.0),
    )
    for name in ("", HOSTILE)
    for operator in ("decay", HOSTILE)
]


@pytest.mark.parametrize("event", HOSTILE_EVENTS)
def test_hostile_text_is_text_on_one_line(event: Event) -> None:
    shown, file = view()
    shown.write(event)
    text = file.getvalue()
    assert text.count("\n") == 1 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    kind = event["outcome"]["kind"]
    assert kind != "rejected" or "[red]red[/red] [/] [link=http://evil]here[/link]" in text
    assert kind != "crashed" or text.endswith("[bold]line[/]\n")


@pytest.mark.parametrize("event", HOSTILE_EVENTS)
def test_hostile_text_is_text_in_the_live_view(event: Event) -> None:
    shown, _ = view(terminal=True)
    ask = {**ASK, "candidate": event["candidate"], "weights": {HOSTILE: 1}}
    for each in (ask, {**event, "credit": {HOSTILE: {"reward": 0.5, "pulls": 2}}}):
        shown.write(each)
    text = drawn(shown)
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x07" not in text and "\x9b" not in text
    assert "[red]red[/red]" in text, "the operator's name is shown as it is written"


# The live view


def test_in_a_terminal_the_view_shows_how_far_it_is(events: list[Event]) -> None:
    shown, file = view(terminal=True)
    best: list[float] = []
    for event in events:
        shown.write(event)
        if event["event"] == "trial" and event["outcome"]["kind"] == "fitness" and event["purpose"] == "search":
            best.append(event["outcome"]["bits_per_byte"])
        text = drawn(shown)
        assert "first" in text and "of 40 candidates" in text
    assert "40 of 40 candidates" in text and "best baseline" in text and "best search" in text
    assert all(name in text for name in ("decay", "crossover", "rejected", "crashed", "fitness"))
    assert file.getvalue() == "", "no lines beside the view"


def test_in_a_terminal_the_view_is_gone_at_the_end(events: list[Event]) -> None:
    shown, file = view(terminal=True)
    with shown:
        for event in events:
            shown.write(event)
    assert "candidates" in file.getvalue()
    assert file.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in file.getvalue()


def test_running_trials_are_shown_until_they_end(events: list[Event]) -> None:
    shown, _ = view(terminal=True)
    running: set[str] = set()
    for event in events:
        shown.write(event)
        if event["event"] == "ask":
            running.add(event["trial"])
        elif event["event"] == "trial":
            running.remove(event["id"])
        assert set(re.findall(r"running  (t\d+)", drawn(shown))) == running


def test_the_best_is_that_of_the_archive() -> None:
    search, events = start(make_settings(trials=40))
    simulate(search)
    progress = Progress(40)
    for event in events:
        progress.take(event)
    for purpose in ("search", "baseline"):
        best = search.best(purpose)
        assert best and progress.best[purpose]["id"] == best.id


def test_what_is_written_while_it_is_drawn_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view has a thread of its own, which must not see half an event."""
    shown, _ = view(terminal=True)
    first, second = ({**ASK, "trial": f"t{number:04d}"} for number in range(2))
    shown.write(first)
    writing = threading.Thread(target=lambda: shown.write(second))

    def slow_title(event: Event) -> str:
        if not writing.ident:
            writing.start()
            writing.join(0.1)
        return title(event)

    monkeypatch.setattr(live, "title", slow_title)
    assert re.findall(r"running  (t\d+)", drawn(shown)) == ["t0000"]
    writing.join(30)
    assert re.findall(r"running  (t\d+)", drawn(shown)) == ["t0000", "t0001"]


# What is held


def test_what_is_held_is_a_line_with_the_command_and_counted() -> None:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    shown = LiveView("first", 40, console, "nas review results/first")
    shown.write(ended(Held("leap", "it gains 0.5", fitness(0.5))))
    line = console.file.getvalue()  # type: ignore[attr-defined]
    assert line == "00:00  t0007 is held: leap: it gains 0.5: nas review results/first\n"
    text = drawn(shown)
    assert "outcomes: 1 held" in text and "held: t0007: nas review results/first" in text
    assert "best search" not in text


def test_what_is_held_is_counted_as_such_though_the_scheduler_stopped_it() -> None:
    progress = Progress(40)
    progress.take(ended(Held("leap", "x", fitness(0.5, step=10)), stopped=True))
    assert progress.outcomes == {"held": 1}


@pytest.mark.parametrize(("decision", "best"), [("accept", 0.5), ("refuse", 2.0)])
def test_what_was_decided_waits_no_more(decision: str, best: float) -> None:
    shown, file = view()
    events = [
        {**ended(fitness(2.0)), "id": "t0006"},
        ended(Held("leap", "x", fitness(0.5))),
        {"event": "review", "trial": "t0007", "decision": decision, "by": "Ada", "why": "looked"},
        {"event": "review", "trial": "t0099", "decision": decision, "by": "Ada", "why": "looked"},
    ]
    shown.catch_up(events)
    assert "t0007: nas review" not in drawn(shown) and file.getvalue() == ""
    assert shown._progress.best["search"]["outcome"]["bits_per_byte"] == best


def test_a_notice_is_a_line_of_text() -> None:
    shown, file = view()
    shown.write({"event": "notice", "tripwire": "collapse", "reason": f"7 of 8: {HOSTILE}"})
    assert file.getvalue().startswith("00:00  collapse: 7 of 8: [red]red[/red] [/]")
    assert file.getvalue().count("\n") == 1 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", file.getvalue())
    assert "collapse: 7 of 8" in drawn(shown)


# What the language models do

FAILED = {"event": "call_failed", "work": "p0001", "call": 0, "role": "researcher", "model": "qwen3", "kind": "timeout",
          "reason": "180 s", "tokens_in": 100, "tokens_out": 0, "dollars": 0.0, "seconds": 180.0}  # fmt: skip
ANSWERED = {**FAILED, "event": "completion", "text": "...", "tokens_out": 20, "dollars": 0.25}
DRAWN = {"event": "draw", "work": "p0001", "operator": "decay", "plan": {"model": "qwen3"}}


def test_calls_are_counted_in_the_view_and_are_no_lines() -> None:
    shown, file = view()
    assert "llm:" not in drawn(shown)
    for event in (DRAWN, ANSWERED, FAILED, {**FAILED, "event": "unusable", "kind": "json"}):
        shown.write(event)
    assert file.getvalue() == ""
    assert (
        "llm: 2 calls, 1 failed (1 timeout), 1 unusable answer (1 json), 220 tokens, $0.25; "
        "1 proposal ready or in the making" in drawn(shown)
    )


def test_a_proposal_that_came_to_nothing_is_a_line() -> None:
    shown, file = view()
    for event in (
        DRAWN,
        {"event": "no_proposal", "cause": "model", "work": "p0001", "reason": "three answers,\nnone of use"},
    ):
        shown.write(event)
    line = "p0001: no candidate from the LLM (three answers, none of use): the grammar takes its place"
    assert file.getvalue() == f"00:00  {line}\n" and line in drawn(shown)


def test_what_a_person_has_to_mend_is_a_line_once_for_each_model() -> None:
    shown, file = view()
    for model in ("qwen3", "gpt", "qwen3"):
        for kind in ("authentication", "not found", "server"):
            shown.write({**FAILED, "model": model, "kind": kind, "reason": f"{kind} by {model}"})
    assert [line[7:] for line in file.getvalue().splitlines()] == [
        f"llm: {model}: {kind}: {kind} by {model}"
        for model in ("qwen3", "gpt")
        for kind in ("authentication", "not found")
    ]


def test_a_notice_of_the_llm_is_a_line() -> None:
    shown, file = view()
    shown.write({"event": "notice", "tripwire": "llm", "reason": "the cap llm.max_dollars=1 is reached"})
    assert file.getvalue() == "00:00  llm: the cap llm.max_dollars=1 is reached\n"


@pytest.mark.parametrize(
    ("proposer", "work", "by"),
    [("grammar", None, ""), ("folder", None, "by folder: "), ("llm", "p0001", "by qwen3: "), ("llm", None, "by llm: ")],
)
def test_a_trial_says_who_proposed_it(proposer: str, work: str | None, by: str) -> None:
    shown, file = view()
    trial = ended(fitness(2.0))
    trial["candidate"]["proposer"] = proposer
    for event in (DRAWN, {**ASK, "trial": trial["id"], "work": work, "candidate": trial["candidate"]}, trial):
        shown.write(event)
    assert file.getvalue().endswith(f"  {by}2.000 bits per byte\n")


def test_hostile_words_of_models_are_text_on_one_line() -> None:
    shown, file = view()
    trial = ended(fitness(2.0))
    trial["candidate"]["proposer"] = HOSTILE
    for event in (
        {**DRAWN, "work": HOSTILE, "plan": {"model": HOSTILE}},
        {**FAILED, "work": HOSTILE, "kind": "not found", "model": HOSTILE, "reason": HOSTILE},
        {**FAILED, "kind": HOSTILE},
        {"event": "no_proposal", "cause": "model", "work": HOSTILE, "reason": HOSTILE},
        {**ASK, "trial": trial["id"], "work": HOSTILE, "candidate": trial["candidate"]},
        trial,
    ):
        shown.write(event)
    assert file.getvalue().count("\n") == 3
    for text in (file.getvalue(), drawn(shown).replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) and "[red]red[/red]" in text


# Time


def test_the_time_left_follows_from_the_pace(now: list[float]) -> None:
    progress = Progress(trials=12)
    assert progress.seconds_left() is None
    for number in range(4):
        now[0] += 10
        progress.take({**ended(fitness(2.0)), "id": f"t{number}"})
    assert progress.seconds_left() == pytest.approx(8 * 10)


def test_after_a_resumption_the_pace_is_that_of_this_run(now: list[float], events: list[Event]) -> None:
    shown, file = view(trials=1000)
    shown.catch_up(events)
    assert file.getvalue() == "", "what was told in an earlier run is not told again"
    shown.write({"event": "resume", "time": 0.0})
    progress = shown._progress
    assert progress.proposals == 40 and progress.seconds_left() is None
    now[0] += 7
    shown.write({**ended(fitness(2.0)), "id": "t9999"})
    assert progress.seconds_left() == pytest.approx(7 * (1000 - 41))
    assert file.getvalue().startswith("00:07  t9999")


def test_copies_are_no_candidates(events: list[Event]) -> None:
    progress = Progress(40)
    for event in events:
        progress.take(event)
    assert any(event["event"] == "ask" and event["duplicate"] for event in events)
    assert progress.proposals == 40 < sum(progress.outcomes.values())


@pytest.mark.parametrize("event", [{"event": "end", "reason": "x"}, {"event": "search"}, {"event": "later"}])
def test_other_events_are_no_line(event: Event) -> None:
    assert Progress(3).take(event) is None
