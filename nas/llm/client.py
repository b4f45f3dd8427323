"""Calls of models: paid for once, within the caps, tried again where that may help, and recorded before they are used.

The HTTP itself is `nas.llm.transport`, which is imported when there is something to call.
"""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from nas.errors import UserError
from nas.llm.outcomes import Answer, Failure
from nas.llm.spending import Reservation, Spending, estimated_tokens
from nas.settings import LlmSettings

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from nas.llm.transport import Transport

Event = dict[str, Any]

_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"  # sent to servers that ask for none
_PASSING = frozenset({"rate limit", "server", "timeout", "connection", "broken"})  # may go better the next time
_PERMANENT = frozenset({"authentication", "not found"})
_LONGEST_BACKOFF = 60.0  # seconds
_BYTES_PER_TOKEN = 16  # more than any tokenizer's mean, with JSON's escapes
_BYTES_AROUND = 1 << 16  # of what is not the text: headers of the protocol, usage, reasoning left out of `content`
_WEAKER = {"json_schema": "json_object", "json_object": "none"}
_OF_THE_SHAPE = ("response_format", "json_schema", "json_object", "structured", "schema", "grammar")


class Stopped(Exception):
    """The client was closed: the search has ended."""


class Unavailable(Exception):
    """No text came of a call, and trying further is of no use now.

    Attributes:
      kind: see `nas.llm.outcomes.Failure`.
      permanent: asking this model again is of no use at all: the key or the name is wrong.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
        self.permanent = kind in _PERMANENT


@dataclass(frozen=True)
class Call:
    """One question to one model.

    Attributes:
      work, number: which work it is for, and its number in there.
      schema_name, schema: the JSON schema of the answer, None where its shape is free.
    """

    work: str
    number: int
    role: str
    model: str
    messages: tuple[Mapping[str, str], ...]
    schema_name: str
    schema: Mapping[str, Any] | None
    seed: int


def key_of(settings: LlmSettings, environ: MutableMapping[str, str]) -> str:
    """The key, taken out of the environment: no process started from now on inherits it.

    Raises:
      UserError: if a key is needed and missing, or can't be sent, or `llm.base_url` is none.
    """
    name = settings.key_env
    key = environ.pop(name, "")
    base_url(settings)
    if not all("!" <= letter <= "~" for letter in key):
        raise UserError(f"the key in the environment variable {name} has characters that no key has: set it anew")
    if not key and settings.base_url is None:
        raise UserError(f"proposer=llm needs a key: set the environment variable {name}, or llm.base_url of a server")
    return key or _NO_KEY


def base_url(settings: LlmSettings) -> str:
    """Where to send requests.

    Raises:
      UserError: if it is not an address, or holds a secret: settings are written to the journal.
    """
    if settings.base_url is None:
        return _OPENAI
    try:
        parts = urlsplit(settings.base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError("llm.base_url must be an address such as http://127.0.0.1:8000/v1")
    if "@" in settings.base_url or parts.query or parts.fragment:
        raise UserError(
            f"llm.base_url must have no user, password or query: put the key into the environment variable "
            f"{settings.key_env}"
        )
    return settings.base_url


def prompt_of(call: Call, settings: LlmSettings) -> tuple[str, Event]:
    """All that decides the answer to `call`, after its SHA-256 (of its JSON with sorted keys)."""
    request = {
        "model": call.model,
        "messages": [dict(message) for message in call.messages],
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "structured": settings.structured,
        "extra_body": dict(settings.extra_body),
        "schema_name": call.schema_name,
        "schema": dict(call.schema) if call.schema is not None else None,
        "seed": call.seed,
    }
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest(), request


class Client:
    """Asks models, from any thread.

    Args:
      key: from `key_of`. It is in nothing that is recorded, kept, raised or logged.
      spending: counts this client's calls by itself; whoever reads a journal gives it those of an earlier run.
      record: writes an event to the journal; when it returns the event is on disk.
      keep: stores a prompt under its SHA-256, before it is sent.

    Raises:
      UserError: if the extra is not installed, or the settings name no endpoint.
    """

    def __init__(
        self,
        settings: LlmSettings,
        key: str,
        spending: Spending,
        record: Callable[[Event], None],
        keep: Callable[[str, Event], None],
    ):
        self._settings = settings
        self._spending = spending
        self._record = record
        self._keep = keep
        self._transport = _transport(settings, key)
        self._gate = _Gate(settings.concurrency, settings.calls_per_minute)
        self._known: dict[tuple[str, int, str], str] = {}
        self._dialects: dict[str, _Dialect] = {}
        self._lock = threading.Lock()

    def take(self, event: Mapping[str, Any]) -> None:
        """Learns of an event of an earlier run: what a "completion" brought is not paid for again."""
        if event["event"] == "completion":
            self._known[event["work"], event["call"], event["prompt"]] = event["text"]

    def complete(self, call: Call) -> str:
        """The text that the model answers with: recorded, or known from an earlier run.

        Raises:
          Unavailable: if the endpoint gives none.
          CapReached: if a cap leaves no room for it.
          Stopped: if the client is closed, before or meanwhile.
        """
        prompt, request = prompt_of(call, self._settings)
        known = self._known.get((call.work, call.number, prompt))
        if known is not None:
            return known
        self._gate.check()
        self._spending.check()
        self._keep(prompt, request)
        outcome = self._persistently(call, prompt)
        if isinstance(outcome, Answer):
            return outcome.text
        if outcome.kind == "stopped":
            raise Stopped
        raise Unavailable(outcome.kind, outcome.reason)

    def close(self) -> None:
        """Every wait ends now, and what is being asked is hung up on: `complete` raises Stopped in its threads."""
        self._gate.close()
        self._transport.close()

    def _persistently(self, call: Call, prompt: str) -> Answer | Failure:
        """Asks again after a failure that may pass, `llm.retries` times, with growing pauses."""
        from tenacity import Retrying, retry_if_result, stop_after_attempt

        attempts = self._settings.retries + 1
        numbers = itertools.count(1)
        retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=self._pause,
            sleep=self._gate.rest,
            retry=retry_if_result(_may_pass),
            retry_error_callback=_outcome,  # the last failure, as a value
        )
        return retrying(lambda: self._understood(call, prompt, last=next(numbers) == attempts))

    def _pause(self, state: "RetryCallState") -> float:
        """Seconds: `backoff * 2^n`, and as much as one `backoff` of jitter; no less than the server asks for."""
        from tenacity import wait_exponential, wait_random

        backoff = self._settings.backoff_seconds
        own = wait_exponential(multiplier=backoff, max=_LONGEST_BACKOFF)(state) + wait_random(0, backoff)(state)
        failure = _outcome(state)
        return max(own, failure.retry_after) if isinstance(failure, Failure) else own

    def _understood(self, call: Call, prompt: str, last: bool) -> Answer | Failure:
        """Asks in the terms that this model's server takes, which it may have to be asked once for."""
        while True:
            dialect = self._dialect(call.model)
            outcome, simpler = self._once(call, prompt, dialect, last)
            if simpler is None:
                return outcome
            with self._lock:
                if self._dialects.get(call.model, dialect) == dialect:  # else another thread has learned something
                    self._dialects[call.model] = simpler

    def _dialect(self, model: str) -> "_Dialect":
        with self._lock:
            return self._dialects.get(model, _Dialect(self._settings.structured))

    def _once(
        self, call: Call, prompt: str, dialect: "_Dialect", last: bool
    ) -> "tuple[Answer | Failure, _Dialect | None]":
        """One attempt, reserved before and recorded after; and the dialect to try next, if it was this one's fault."""
        tokens_in = estimated_tokens(sum(len(message["content"]) for message in call.messages))
        most_out = self._settings.max_tokens
        with self._gate.turn(lambda: self._spending.reserve(call.model, tokens_in, most_out)) as reservation:
            start = time.monotonic()
            outcome = self._transport.ask(
                self._body(call, dialect),
                self._settings.extra_body,
                limit=_BYTES_AROUND + _BYTES_PER_TOKEN * most_out,
            )
            seconds = time.monotonic() - start
            simpler = _simpler(dialect, outcome, call.schema is not None)
            event = {
                "event": "completion" if isinstance(outcome, Answer) else "call_failed",
                "work": call.work,
                "call": call.number,
                "role": call.role,
                "model": call.model,
                "prompt": prompt,
                **(
                    {"text": outcome.text, "finish": outcome.finish}
                    if isinstance(outcome, Answer)
                    else {
                        "kind": outcome.kind,
                        "reason": outcome.reason,
                        "again": simpler is not None or (_may_pass(outcome) and not last),
                    }
                ),
                **self._cost(call.model, outcome, tokens_in, most_out),
                "seconds": round(seconds, 3),
            }
            self._record(event)
            reservation.take(event)
        return outcome, simpler

    def _body(self, call: Call, dialect: "_Dialect") -> Event:
        """What the server is sent, beside `llm.extra_body`."""
        settings = self._settings
        body = {
            "model": call.model,
            "messages": [dict(message) for message in call.messages],
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": call.seed,
            dialect.limit: settings.max_tokens,
        }
        if call.schema is not None and dialect.structured == "json_schema":
            schema = {"name": call.schema_name, "schema": dict(call.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif call.schema is not None and dialect.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _cost(self, model: str, outcome: Answer | Failure, read: int, most_out: int) -> Event:
        """Tokens and dollars: the server's figures, and estimates where it gives none.

        An answer that came in no whole may have been written, and is to be paid for, to its last token.
        """
        told_in, told_out = outcome.tokens_in, outcome.tokens_out
        if isinstance(outcome, Answer):
            written = estimated_tokens(len(outcome.text))
        elif outcome.charged:
            written = most_out
        else:
            read = written = 0
        tokens_in = read if told_in is None else told_in
        tokens_out = written if told_out is None else told_out
        return {
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
            "estimated": (told_in is None or told_out is None) and tokens_in + tokens_out > 0,
            "dollars": self._spending.dollars(model, tokens_in, tokens_out),
        }


@dataclass(frozen=True)
class _Dialect:
    """How one model's server wants to be asked: what it knows of structured answers, its name for `llm.max_tokens`."""

    structured: str
    limit: str = "max_tokens"


def _simpler(dialect: _Dialect, outcome: Answer | Failure, shaped: bool) -> _Dialect | None:
    """The dialect to ask in after a refusal that is about this one; None if that is not what went wrong."""
    if isinstance(outcome, Answer) or not outcome.invalid:
        return None
    words = outcome.reason.lower()
    if dialect.limit == "max_tokens" and "max_completion_tokens" in words:
        return _Dialect(dialect.structured, "max_completion_tokens")
    weaker = _WEAKER.get(dialect.structured)
    if shaped and weaker is not None and any(word in words for word in _OF_THE_SHAPE):
        return _Dialect(weaker, dialect.limit)
    return None


class _Gate:
    """Lets at most `concurrency` calls in at a time, and `per_minute` of them at even distances, until it is closed."""

    def __init__(self, concurrency: int, per_minute: float | None):
        self._concurrency = concurrency
        self._distance = 60 / per_minute if per_minute else 0.0  # seconds
        self._running = 0
        self._next = time.monotonic()
        self._closed = False
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, reserve: Callable[[], Reservation | None]) -> Iterator[Reservation]:
        """Waits for a place, a moment and a reservation, which is given back at the end of the block.

        Raises:
          CapReached: by `reserve`.
          Stopped: if the gate is closed, or was meanwhile.
        """
        reservation = self._enter(reserve)
        try:
            with reservation:
                yield reservation
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def check(self) -> None:
        """Raises Stopped if the gate is closed."""
        with self._changed:
            if self._closed:
                raise Stopped

    def rest(self, seconds: float) -> None:
        """Sleeps, until the gate is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _enter(self, reserve: Callable[[], Reservation | None]) -> Reservation:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._closed or self._running < self._concurrency)
                if self._closed:
                    raise Stopped
                early = self._next - time.monotonic()
                if early > 0:
                    self._changed.wait(early)
                    continue
                reservation = reserve()
                if reservation is None:  # some call in flight holds the room: it tells when it ends
                    self._changed.wait()
                    continue
                self._running += 1
                self._next = time.monotonic() + self._distance
                return reservation


def _may_pass(outcome: Answer | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.kind in _PASSING


def _outcome(state: "RetryCallState") -> Answer | Failure:
    assert state.outcome is not None, "there was an attempt"
    return cast("Answer | Failure", state.outcome.result())


def _transport(settings: LlmSettings, key: str) -> "Transport":
    address = base_url(settings)
    try:
        import tenacity  # noqa: F401

        from nas.llm.transport import Transport
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nas"):
            raise
        raise UserError("proposer=llm needs the extra llm: pip install 'nas[llm]'") from error
    return Transport(address, key, settings.timeout_seconds)
