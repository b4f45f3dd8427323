"""What a search has spent on models, and the caps that it keeps."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nas.settings import LlmSettings

_CHARACTERS_PER_TOKEN = 3  # fewer than tokenizers reach on English or code: estimates err on the dear side


class CapReached(Exception):
    """A cap of the settings leaves no room for a call. The message is the setting: "llm.max_calls=10"."""


@dataclass(frozen=True)
class Spent:
    """What was spent so far: for people, and for the caps. `tokens` are those read and those written together."""

    dollars: float = 0.0
    tokens: int = 0
    calls: int = 0
    failures: Mapping[str, int] | None = None


def estimated_tokens(characters: int) -> int:
    """Tokens of so many characters, where nobody has counted them."""
    return -(-characters // _CHARACTERS_PER_TOKEN)


class Spending:
    """Counts calls, tokens and dollars against the caps of `settings`, in any number of threads.

    Every HTTP attempt is a call, whether it brought anything or not. A call reserves the most it can cost before it
    begins, and may begin only while `spent + reserved < cap` for each cap: so a cap is overstepped by no more than the
    call that reaches it, however many are in flight.
    """

    def __init__(self, settings: LlmSettings):
        self._caps = (
            ("max_dollars", settings.max_dollars),
            ("max_tokens_total", settings.max_tokens_total),
            ("max_calls", settings.max_calls),
        )
        self._prices = {price.model: price for price in settings.prices}
        self._lock = threading.Lock()
        self._dollars = 0.0
        self._tokens = 0
        self._calls = 0
        self._failures: Counter[str] = Counter()
        self._reserved: set[Reservation] = set()

    def dollars(self, model: str, tokens_in: int, tokens_out: int) -> float:
        """The price of so many tokens; a model without a price costs nothing."""
        price = self._prices.get(model)
        return (tokens_in * price.input + tokens_out * price.output) / 1e6 if price else 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """Counts a "completion" or "call_failed" of the journal. Those of a `Reservation` are counted by it already."""
        with self._lock:
            self._count(event)

    def tally(self) -> Spent:
        with self._lock:
            return Spent(self._dollars, self._tokens, self._calls, dict(self._failures))

    def check(self) -> None:
        """Raises CapReached if what is spent leaves no room, whatever becomes of the calls in flight."""
        with self._lock:
            self._check()

    def reserve(self, model: str, tokens_in: int, tokens_out: int) -> "Reservation | None":
        """Room for one call that reads about `tokens_in` and writes at most `tokens_out` tokens.

        Returns:
          None while only the calls in flight stand in the way, which may turn out to cost less: ask again after one.

        Raises:
          CapReached: if what is spent leaves no room.
        """
        with self._lock:
            self._check()
            held = (
                sum(reservation.dollars for reservation in self._reserved),
                sum(reservation.tokens for reservation in self._reserved),
                len(self._reserved),
            )
            if self._full(held):
                return None
            reservation = Reservation(self, self.dollars(model, tokens_in, tokens_out), tokens_in + tokens_out)
            self._reserved.add(reservation)
            return reservation

    def _check(self) -> None:
        full = self._full((0.0, 0, 0))
        if full:
            raise CapReached(full)

    def _full(self, held: tuple[float, int, int]) -> str | None:
        """The first cap that what is spent and `held` reaches."""
        spent = (self._dollars, self._tokens, self._calls)
        for (name, cap), used, more in zip(self._caps, spent, held, strict=True):
            if cap is not None and used + more >= cap:
                return f"llm.{name}={cap:g}" if isinstance(cap, float) else f"llm.{name}={cap}"
        return None

    def _count(self, event: Mapping[str, Any]) -> None:
        if event["event"] not in ("completion", "call_failed"):
            return
        self._calls += 1
        self._tokens += event["tokens_in"] + event["tokens_out"]
        self._dollars += event["dollars"]
        if event["event"] == "call_failed":
            self._failures[event["kind"]] += 1

    def _settle(self, reservation: "Reservation", event: Mapping[str, Any] | None) -> None:
        """What a call really cost takes the place of what it had reserved, in one step."""
        with self._lock:
            self._reserved.discard(reservation)
            if event is not None:
                self._count(event)


class Reservation:
    """Room for one call. It is given back at the end of its `with` block, against what `take` was told of the call."""

    def __init__(self, spending: Spending, dollars: float, tokens: int):
        self.dollars = dollars
        self.tokens = tokens
        self._spending = spending
        self._event: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._spending._settle(self, self._event)

    def take(self, event: Mapping[str, Any]) -> None:
        """The event of the call, once it is recorded."""
        self._event = event
