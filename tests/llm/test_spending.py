"""Caps hold to within one call, and what was spent is rebuilt from events."""

import threading
from typing import Any

import pytest

from nas.llm.spending import CapReached, Spending, estimated_tokens
from nas.settings import LlmSettings, ModelPrice

PRICES = (ModelPrice("tiny", 1.0, 10.0),)


def settings(**changes: Any) -> LlmSettings:
    return LlmSettings(models=("tiny",), prices=PRICES, **changes)


def event(kind: str | None = None, tokens_in: int = 10, tokens_out: int = 5, dollars: float = 0.25) -> dict[str, Any]:
    usage = {"tokens_in": tokens_in, "tokens_out": tokens_out, "dollars": dollars}
    return {"event": "call_failed", "kind": kind, **usage} if kind else {"event": "completion", **usage}


def test_what_was_spent_is_rebuilt_from_events() -> None:
    spending = Spending(settings())
    for told in (event(), event("timeout"), event("timeout"), event("broken"), {"event": "trial"}):
        spending.take(told)
    spent = spending.tally()
    assert (spent.calls, spent.tokens, spent.dollars) == (4, 60, 1.0)
    assert spent.failures == {"timeout": 2, "broken": 1}


def test_prices_are_per_million_tokens() -> None:
    spending = Spending(settings())
    assert spending.dollars("tiny", 1_000_000, 100_000) == pytest.approx(2.0)
    assert spending.dollars("a model without a price", 10**6, 10**6) == 0


def test_an_estimate_rounds_up() -> None:
    assert [estimated_tokens(count) for count in (0, 1, 3, 4)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("cap", "words"),
    [
        ({"max_calls": 1}, "llm.max_calls=1"),
        ({"max_tokens_total": 15}, "llm.max_tokens_total=15"),
        ({"max_dollars": 0.25}, "llm.max_dollars=0.25"),
    ],
)
def test_a_cap_that_is_reached_is_named(cap: dict[str, Any], words: str) -> None:
    spending = Spending(settings(**cap))
    spending.check()
    spending.take(event())
    with pytest.raises(CapReached, match=words):
        spending.check()
    with pytest.raises(CapReached, match=words):
        spending.reserve("tiny", 1, 1)


@pytest.mark.parametrize("cap", [{"max_calls": 0}, {"max_tokens_total": 0}, {"max_dollars": 0.0}])
def test_a_cap_of_nothing_allows_no_call(cap: dict[str, Any]) -> None:
    with pytest.raises(CapReached):
        Spending(settings(**cap)).reserve("tiny", 1, 1)


def test_a_reservation_holds_its_worst_case_and_gives_back_what_it_did_not_cost() -> None:
    spending = Spending(settings(max_tokens_total=100))
    first = spending.reserve("tiny", 40, 60)
    assert first is not None
    with first:
        assert spending.reserve("tiny", 1, 1) is None, "it may still cost all of it"
        first.take(event(tokens_in=40, tokens_out=2))
    assert spending.tally().tokens == 42
    assert spending.reserve("tiny", 40, 60) is not None


def test_a_call_that_was_not_made_costs_nothing() -> None:
    spending = Spending(settings(max_calls=1))
    reservation = spending.reserve("tiny", 1, 1)
    with pytest.raises(OSError), reservation or pytest.fail("no room"):
        raise OSError
    assert spending.tally().calls == 0
    assert spending.reserve("tiny", 1, 1) is not None


@pytest.mark.parametrize(
    ("cap", "unit"), [({"max_calls": 40}, 1), ({"max_tokens_total": 600}, 15), ({"max_dollars": 0.006}, 1.5e-4)]
)
def test_caps_hold_to_within_one_call_whatever_is_in_flight(cap: dict[str, Any], unit: float) -> None:
    """Each call costs all that it reserved, the worst case: then the cap may be overstepped by one call's cost."""
    spending = Spending(settings(**cap))
    cost = event(tokens_in=0, tokens_out=15, dollars=spending.dollars("tiny", 0, 15))
    begun: list[int] = []

    def work() -> None:
        while True:
            try:
                reservation = spending.reserve("tiny", 0, 15)
            except CapReached:
                return
            if reservation is not None:
                with reservation:
                    begun.append(1)
                    reservation.take(cost)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (value,) = cap.values()
    assert value <= len(begun) * unit * (1 + 1e-9) < value + unit * (1 + 1e-6)
