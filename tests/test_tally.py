"""What the language models did is counted, whatever an event holds."""

import json

import pytest

from nas.tally import FAILURES, UNUSABLE, VERDICTS, Tally


def call(**fields: object) -> dict:
    used = {"tokens_in": 1000, "tokens_out": 200, "estimated": False, "dollars": 0.01, "seconds": 1.0}
    return {"event": "completion", "work": "p0001", "call": 0, "model": "qwen3", "text": "...", **used, **fields}


def failed(kind: object) -> dict:
    return call(event="call_failed", kind=kind, reason="it failed", tokens_out=0, dollars=0.0, again=True)


def unusable(kind: object) -> dict:
    return {"event": "unusable", "work": "p0001", "call": 0, "kind": kind, "reason": "no"}


def drawn(work: str, model: object = "qwen3") -> dict:
    return {"event": "draw", "work": work, "operator": "decay", "plan": {"model": model}}


def asked(work: str | None, proposer: str = "llm", purpose: str = "search", duplicate: bool = False) -> dict:
    return {
        "event": "ask",
        "work": work,
        "purpose": purpose,
        "duplicate": duplicate,
        "candidate": {"proposer": proposer},
    }


def verdict(trial: str, said: object) -> dict:
    return {"event": "analysis", "trial": trial, "by": "rules", "verdict": said}


def told(*events: dict) -> Tally:
    tally = Tally()
    for event in events:
        tally.take(json.loads(json.dumps(event)))
    return tally


SEARCH = (
    *(drawn(f"p000{number}") for number in range(5)),
    *[call()] * 3,
    failed("timeout"),
    failed("rate limit"),
    unusable("json"),
    asked("p0000"),
    {"event": "no_proposal", "cause": "model", "work": "p0001", "reason": "nothing"},
    asked(None, "grammar"),
    asked("p0002"),
    asked(None, "hand", purpose="baseline"),
    asked(None, "grammar", duplicate=True),
    verdict("t0001", "unclear"),
    verdict("t0001", "confirmed"),
    verdict("t0002", "contradicted"),
    verdict("t0003", "no prediction"),
)


def test_a_search_in_words() -> None:
    tally = told(*SEARCH)
    assert tally.words() == (
        "5 calls, 2 failed (1 rate limit, 1 timeout), 1 unusable answer (1 json), 5.6k tokens, $0.0300; "
        "2 proposals ready or in the making"
    )
    assert tally.result() == (
        "2 candidates by qwen3, 1 by grammar; 1 proposal came to nothing and left it to the grammar; "
        "predictions: 1 confirmed, 1 contradicted"
    )


def test_without_a_model_there_is_nothing_to_tell() -> None:
    tally = told(asked(None, "grammar"), verdict("t0001", "confirmed"), {"event": "trial"}, {"event": "later"}, {})
    assert not tally and told(call()) and told(drawn("p0001")) and told(failed("empty"))


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_a_failure_is_a_call_of_its_kind(kind: str) -> None:
    tally = told(failed(kind), call())
    assert (tally.calls, tally.failed) == (2, {kind: 1})


@pytest.mark.parametrize("kind", sorted(UNUSABLE))
def test_an_unusable_answer_is_no_call_of_its_own(kind: str) -> None:
    tally = told(call(), unusable(kind))
    assert (tally.calls, tally.unusable) == (1, {kind: 1})


def test_estimates_are_told_as_such() -> None:
    assert told(call(), call(estimated=True)).words() == "2 calls, about 2.4k tokens, about $0.0200"


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (120_400, "120k"), (999_600, "1.0M"), (3_400_000, "3.4M")],
)
def test_tokens_have_the_digits_that_a_person_reads(tokens: int, words: str) -> None:
    assert f", {words} tokens" in told(call(tokens_in=tokens, tokens_out=0)).words()


@pytest.mark.parametrize(
    ("dollars", "words"), [(0.0, "$0.00"), (0.0004, "$0.0004"), (0.314, "$0.31"), (12.0, "$12.00")]
)
def test_small_amounts_are_not_rounded_away(dollars: float, words: str) -> None:
    assert told(call(dollars=dollars)).words().endswith(words)


HOSTILE = "\x1b[2J<img src=x> [l](http://evil)\n# Heading"


@pytest.mark.parametrize("text", [HOSTILE, None, 5, [], {}, ["timeout"]])
def test_no_word_of_others_becomes_a_kind(text: object) -> None:
    tally = told(failed(text), unusable(text), verdict("t0001", text))
    assert tally.failed == tally.unusable == {"other": 1} and tally.verdicts == {"t0001": "other"}
    assert VERDICTS.isdisjoint({"other"})
    assert tally.words() == "1 call, 1 failed (1 other), 1 unusable answer (1 other), 1.0k tokens, $0.00"


@pytest.mark.parametrize("junk", [None, "junk", -3, True, 10**400, [], {}, {"model": 5}, "missing"])
@pytest.mark.parametrize("place", range(len(SEARCH)))
def test_damage_to_an_event_costs_that_event_alone(junk: object, place: int) -> None:
    for name in SEARCH[place]:
        damaged = {key: value for key, value in SEARCH[place].items() if key != name}
        if junk != "missing":
            damaged[name] = junk
        tally = told(*SEARCH[:place], damaged, *SEARCH[place + 1 :])
        assert 4 <= tally.calls <= 5 and 0.02 <= tally.dollars < 0.04 and tally.words() and tally.result()


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0, "1", True, None])
def test_what_is_no_amount_adds_nothing(amount: object) -> None:
    tally = told(call(dollars=amount, tokens_in=amount, tokens_out=amount))
    assert (tally.calls, tally.tokens, tally.dollars) == (1, 0, 0.0)


def test_the_author_is_the_model_of_the_work_or_else_the_proposer() -> None:
    tally = told(drawn("p0001", "gpt"))
    assert tally.author(asked("p0001")) == "gpt" and tally.author(asked(None, "folder")) == "folder"
    assert tally.author({}) == tally.author({"candidate": 3, "work": []}) == ""
