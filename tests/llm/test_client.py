"""The client against a real endpoint over HTTP, which misbehaves in every way that the journal has a word for."""

import bz2
import json
import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from endpoint import (
    Endpoint,
    Reply,
    Request,
    completion,
    drip,
    early_hints,
    echo_headers,
    empty,
    enormous,
    half,
    hang,
    not_json,
    raw,
    sse_half,
    status,
    text,
)

from nas.errors import UserError
from nas.llm.client import Call, Client, Stopped, Unavailable, key_of, prompt_of
from nas.llm.spending import CapReached, Spending
from nas.settings import LlmSettings, ModelPrice

KEY = "sk-a/secret-of-0123456789"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Team:
    """A client with its spending, and all that it recorded and kept."""

    def __init__(self, base_url: str, key: str = KEY, **changes: Any):
        defaults: dict[str, Any] = {"timeout_seconds": 5.0, "retries": 2, "backoff_seconds": 0.01, "max_tokens": 256}
        self.settings = LlmSettings(
            base_url=base_url,
            models=("tiny", "other"),
            prices=(ModelPrice("tiny", 1.0, 10.0), ModelPrice("other", 1.0, 10.0)),
            **{**defaults, **changes},
        )
        self.events: list[dict[str, Any]] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.spending = Spending(self.settings)
        self.client = Client(self.settings, key, self.spending, self.events.append, self.kept.__setitem__)

    def ask(self, work: str = "p0001", number: int = 0, model: str = "tiny", shaped: bool = False) -> str:
        return self.client.complete(call(work, number, model, shaped))

    def refused(self) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            self.ask()
        return caught.value

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events if event["event"] == "call_failed"]


def call(work: str = "p0001", number: int = 0, model: str = "tiny", shaped: bool = False) -> Call:
    messages = ({"role": "system", "content": "You write mixers."}, {"role": "user", "content": "A diff, please."})
    return Call(work, number, "researcher", model, messages, "proposal", SCHEMA if shaped else None, seed=7)


def always(reply: Reply) -> Callable[[Request, int], Reply]:
    return lambda request, number: reply


def first(*replies: Reply) -> Callable[[Request, int], Reply]:
    """These in turn, then a good answer."""
    return lambda request, number: replies[number] if number < len(replies) else text("hello")


# ------------------------------------------------------------------------------------------------ what goes well


def test_a_completion_is_recorded_with_what_it_cost() -> None:
    with Endpoint(always(text("hello", usage={"prompt_tokens": 100, "completion_tokens": 7}))) as endpoint:
        team = Team(endpoint.base_url)
        assert team.ask() == "hello"
    (event,) = team.events
    prompt, request = prompt_of(call(), team.settings)
    assert 0 <= event.pop("seconds") < 5
    assert event == {
        "event": "completion",
        "work": "p0001",
        "call": 0,
        "role": "researcher",
        "model": "tiny",
        "prompt": prompt,
        "text": "hello",
        "finish": "stop",
        "tokens_in": 100,
        "tokens_out": 7,
        "estimated": False,
        "dollars": pytest.approx(170e-6),
    }
    assert team.kept == {prompt: request}
    assert team.spending.tally().calls == 1


def test_what_is_sent() -> None:
    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url, temperature=0.5, top_p=0.9, extra_body={"top_k": 20})
        team.ask(shaped=True)
    (request,) = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    shape = {"name": "proposal", "schema": SCHEMA, "strict": True}
    assert dict(request) == {
        "model": "tiny",
        "messages": [dict(message) for message in call().messages],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "max_tokens": 256,
        "response_format": {"type": "json_schema", "json_schema": shape},
        "top_k": 20,
    }


def test_the_prompt_is_kept_before_it_is_sent() -> None:
    kept_at_request: list[int] = []
    team: Team | None = None

    def answer(request: Request, number: int) -> Reply:
        assert team is not None
        kept_at_request.append(len(team.kept))
        return text("hello")

    with Endpoint(answer) as endpoint:
        team = Team(endpoint.base_url)
        team.ask()
    assert kept_at_request == [1]


def test_the_hash_is_of_all_that_decides_the_answer() -> None:
    settings = LlmSettings(base_url="http://127.0.0.1:1/v1", models=("tiny",))
    base, _ = prompt_of(call(), settings)
    elsewhere = replace(settings, base_url="http://127.0.0.1:2/v1", timeout_seconds=1.0, models=("tiny", "other"))
    assert prompt_of(call(), elsewhere)[0] == base, "where the server is decides nothing"
    assert prompt_of(call(work="p0002", number=3), settings)[0] == base
    for other in (call(model="other"), call(shaped=True), replace(call(), seed=8), replace(call(), messages=())):
        assert prompt_of(other, settings)[0] != base
    for changed in ({"temperature": 0.1}, {"top_p": 0.5}, {"max_tokens": 5}, {"extra_body": {"top_k": 1}}):
        assert prompt_of(call(), replace(settings, **changed))[0] != base


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -5, "completion_tokens": "many"}, "none", [1], 10**400])
def test_usage_that_no_one_can_believe_is_estimated(usage: Any) -> None:
    with Endpoint(always(text("four", usage=usage))) as endpoint:
        team = Team(endpoint.base_url)
        assert team.ask() == "four"
    (event,) = team.events
    characters = sum(len(message["content"]) for message in call().messages)
    assert (event["tokens_in"], event["tokens_out"], event["estimated"]) == (-(-characters // 3), 2, True)


def test_a_count_of_nothing_is_no_count() -> None:
    with Endpoint(always(text("four", usage={"prompt_tokens": 0, "completion_tokens": 0}))) as endpoint:
        team = Team(endpoint.base_url)
        team.ask()
    assert team.events[0]["estimated"]
    assert team.events[0]["tokens_in"] > 0 and team.events[0]["tokens_out"] > 0

    with Endpoint(always(text("", usage={"prompt_tokens": 9, "completion_tokens": 0}))) as endpoint:
        team = Team(endpoint.base_url)
        team.refused()
    assert (team.events[0]["tokens_in"], team.events[0]["tokens_out"]) == (9, 0), "of no text it is one"


def test_half_a_surrogate_pair_is_no_text() -> None:
    with Endpoint(always(text("a\ud800b"))) as endpoint:
        assert Team(endpoint.base_url).ask() == "a?b"


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (status(429), "rate limit"),
        (status(500), "server"),
        (status(503, body="<html>overloaded</html>"), "server"),
        (half(), "broken"),
        (half(chunked=True), "broken"),
        (not_json(), "broken"),
        (sse_half(), "broken"),
        (raw(b"{}"), "broken"),
        (raw(b"[1, 2]"), "broken"),
        (raw(b'{"choices": [{"message": "no object"}]}'), "broken"),
        (raw(b'{"choices": {"0": 1}, "usage": 3}'), "broken"),
        (raw(b'{"choices": [{"message": {"content": ["parts"]}}]}'), "broken"),
        (raw(b"[" * 100_000, {"Content-Type": "application/json"}), "too large"),
        (raw(b"[" * 60_000, {"Content-Type": "application/json"}), "broken"),
        (raw(b"\x1f\x8b", {"Content-Encoding": "gzip"}), "broken"),
    ],
)
def test_a_failure_that_may_pass_is_recorded_and_tried_again(reply: Reply, kind: str) -> None:
    with Endpoint(first(reply)) as endpoint:
        team = Team(endpoint.base_url)
        if kind == "too large":
            assert team.refused().kind == kind
            return
        assert team.ask() == "hello"
    failed, done = team.events
    assert (failed["event"], failed["kind"], failed["again"]) == ("call_failed", kind, True)
    assert done["event"] == "completion"
    assert len(endpoint.requests) == 2
    charged = kind in ("broken", "timeout")
    assert (failed["tokens_out"], failed["estimated"]) == ((256, True) if charged else (0, False))
    assert team.spending.tally().failures == {kind: 1}


@pytest.mark.parametrize(
    ("reply", "kind", "permanent"),
    [
        (status(401), "authentication", True),
        (status(403), "authentication", True),
        (status(404), "not found", True),
        (status(400), "refused", False),
        (status(413), "refused", False),
        (status(307, {"Location": "http://127.0.0.1:9/v1/elsewhere"}), "refused", False),
        (empty(), "empty", False),
        (raw(json.dumps(completion({}, None)).encode()), "empty", False),
        (enormous(3_000_000), "too large", False),
        (early_hints(), "too large", False),
    ],
)
def test_a_failure_that_stays_is_not_tried_again(reply: Reply, kind: str, permanent: bool) -> None:
    with Endpoint(always(reply)) as endpoint:
        team = Team(endpoint.base_url)
        error = team.refused()
    assert (error.kind, error.permanent) == (kind, permanent)
    assert len(endpoint.requests) == 1
    (event,) = team.events
    assert (event["kind"], event["again"]) == (kind, False)
    assert error.reason == event["reason"]


def test_it_gives_up_after_the_retries() -> None:
    with Endpoint(always(status(500))) as endpoint:
        team = Team(endpoint.base_url, retries=3)
        assert team.refused().kind == "server"
    assert [event["again"] for event in team.events] == [True, True, True, False]
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("reply", [hang(30), drip(30), drip(30, part="head")], ids=["hang", "body", "head"])
def test_no_call_outlives_its_deadline(reply: Reply) -> None:
    with Endpoint(first(reply)) as endpoint:
        team = Team(endpoint.base_url, timeout_seconds=0.4)
        start = time.monotonic()
        assert team.ask() == "hello"
    assert time.monotonic() - start < 0.4 + 2
    assert team.kinds == ["timeout"]
    assert team.events[0]["tokens_out"] == 256


def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it either
        team = Team(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retries=1)
        error = team.refused()
    assert (error.kind, error.permanent) == ("connection", False)
    assert team.kinds == ["connection"] * 2
    assert team.spending.tally().tokens == 0


def test_an_error_under_a_good_status_is_told() -> None:
    with Endpoint(always(raw(b'{"error": {"message": "no provider is up"}}'))) as endpoint:
        error = Team(endpoint.base_url).refused()
    assert error.kind == "broken"
    assert "no provider is up" in error.reason


def test_an_enormous_error_is_not_read() -> None:
    with Endpoint(always(enormous(30_000_000, code=500))) as endpoint:
        assert Team(endpoint.base_url).refused().kind == "too large"


def test_a_server_does_not_choose_how_its_error_is_read() -> None:
    """Python's codecs unpack too: a few bytes would become as many megabytes as one likes."""
    headers = {"Content-Type": "text/plain; charset=bz2"}
    with Endpoint(always(lambda exchange: exchange.whole(400, bz2.compress(b"unpacked"), headers))) as endpoint:
        assert Team(endpoint.base_url).refused().reason.startswith("400: BZh")


def test_a_request_that_cannot_be_written_costs_nothing() -> None:
    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url)
        with pytest.raises(Unavailable, match="refused: the request can't be written: UnicodeEncodeError"):
            team.client.complete(replace(call(), messages=({"role": "user", "content": "half a pair: \ud800"},)))
        assert endpoint.requests == []
    (event,) = team.events
    assert (event["tokens_in"], event["tokens_out"], event["dollars"], event["again"]) == (0, 0, 0.0, False)


def test_a_reason_is_one_short_printable_line() -> None:
    words = "first\nsecond\x1b[2J" + "x" * 1000
    with Endpoint(always(status(400, body=json.dumps({"error": {"message": words}})))) as endpoint:
        reason = Team(endpoint.base_url).refused().reason
    assert len(reason) == 300
    assert reason.startswith("400: first second [2Jx")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    asked = 0.5 if form == "seconds" else 2.0  # a date has whole seconds: this one is 1 to 2 away
    value = str(asked) if form == "seconds" else formatdate(time.time() + asked, usegmt=True)
    with Endpoint(first(status(429, {"Retry-After": value}))) as endpoint:
        Team(endpoint.base_url).ask()
    waited = endpoint.requests[1].arrived - endpoint.requests[0].arrived
    assert asked - (1.1 if form == "date" else 0) <= waited < asked + 1


def test_retry_after_of_an_hour_is_cut() -> None:
    from nas.llm.transport import _retry_after

    assert _retry_after("3600") == _retry_after(formatdate(time.time() + 3600, usegmt=True)) == 60
    assert [_retry_after(value) for value in ("", "-5", "nan", "inf", "soon", formatdate(0))] == [0] * 6


# ------------------------------------------------------------------------------------------------ what servers know


@pytest.mark.parametrize(("structured", "asked"), [("json_schema", 3), ("json_object", 2), ("none", 1)])
def test_a_server_without_structured_outputs_is_asked_in_words(structured: str, asked: int) -> None:
    def answer(request: Request, number: int) -> Reply:
        words = json.dumps({"error": {"message": "Unknown field: response_format"}})
        return status(400, body=words) if "response_format" in request else text("hello")

    with Endpoint(answer) as endpoint:
        team = Team(endpoint.base_url, structured=structured, retries=0)
        assert team.ask(shaped=True) == "hello"
        assert len(endpoint.requests) == asked
        assert all((event["kind"], event["again"]) == ("refused", True) for event in team.events[:-1])
        team.ask(number=1, shaped=True)
        assert len(endpoint.requests) == asked + 1, "it is remembered"


def test_what_one_model_does_not_know_another_is_asked_for() -> None:
    def answer(request: Request, number: int) -> Reply:
        shaped = request.get("response_format", {}).get("type") == "json_schema"
        return status(400, body="json_schema is not supported") if request["model"] == "tiny" and shaped else text("a")

    with Endpoint(answer) as endpoint:
        team = Team(endpoint.base_url)
        team.ask(shaped=True)
        team.ask(model="other", number=1, shaped=True)
    assert [request["response_format"]["type"] for request in endpoint.requests] == [
        "json_schema",
        "json_object",
        "json_schema",
    ]


def test_the_other_name_of_max_tokens() -> None:
    def answer(request: Request, number: int) -> Reply:
        words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return status(400, body=json.dumps({"error": {"message": words}})) if "max_tokens" in request else text("hello")

    with Endpoint(answer) as endpoint:
        team = Team(endpoint.base_url)
        team.ask()
        team.ask(number=1)
    assert [request.get("max_completion_tokens") for request in endpoint.requests] == [None, 256, 256]


# ------------------------------------------------------------------------------------------------ what is paid


def test_nothing_is_paid_for_twice() -> None:
    with Endpoint(first(status(500))) as endpoint:
        team = Team(endpoint.base_url)
        team.ask()
        again = Team(endpoint.base_url)
        for event in team.events:
            again.client.take(event)
        assert again.ask() == "hello"
        assert len(endpoint.requests) == 2
        assert again.events == []
        again.ask(number=1)
        again.ask(work="p0002")
        again.ask(model="other")
        assert len(endpoint.requests) == 5, "other calls are made"


def test_caps_hold_under_concurrency() -> None:
    def answer(request: Request, number: int) -> Reply:
        return hang(0.02) if number % 3 else status(500)  # a failed attempt is a call too

    with Endpoint(answer) as endpoint:
        team = Team(endpoint.base_url, max_calls=10, concurrency=8, backoff_seconds=0.005)

        def work(number: int) -> str:
            for step in range(10):
                try:
                    team.ask(f"p{number:04d}", step)
                except CapReached as error:
                    return str(error)
                except Unavailable:
                    pass
            return "no cap"

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(8))) == {"llm.max_calls=10"}
    assert len(endpoint.requests) == len(team.events) == 10


def test_a_cap_on_tokens_waits_for_what_is_in_flight() -> None:
    """Four calls may not begin at once under this cap, and yet all of them fit."""
    with Endpoint(always(text("hello", usage={"prompt_tokens": 10, "completion_tokens": 10}))) as endpoint:
        team = Team(endpoint.base_url, max_tokens_total=300, concurrency=4)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda number: team.ask(number=number), range(4))) == ["hello"] * 4
    assert team.spending.tally().tokens == 80


def test_what_an_earlier_run_spent_counts() -> None:
    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url, max_calls=1)
        team.spending.take({"event": "completion", "tokens_in": 1, "tokens_out": 1, "dollars": 0.0})
        with pytest.raises(CapReached, match=r"llm\.max_calls=1"):
            team.ask()
    assert endpoint.requests == []
    assert team.kept == {}


def test_no_more_than_the_settings_allow_at_a_time() -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def send(exchange: Any) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.03)
        with lock:
            inside -= 1
        text("hello")(exchange)

    with Endpoint(always(send)) as endpoint:
        team = Team(endpoint.base_url, concurrency=2)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda number: team.ask(number=number), range(6)))
    assert most == 2


def test_calls_keep_their_distance() -> None:
    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url, calls_per_minute=300)  # 0.2 s apart
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: team.ask(number=number), range(3)))
    arrived = [request.arrived for request in endpoint.requests]
    assert arrived[-1] - arrived[0] >= 0.3, "two distances, less what the first took to arrive"


def test_a_journal_that_takes_nothing_more_stops_the_call() -> None:
    def full(event: dict[str, Any]) -> None:
        raise OSError("no space left")

    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url)
        client = Client(team.settings, KEY, team.spending, full, team.kept.__setitem__)
        with pytest.raises(OSError, match="no space left"):
            client.complete(call())
    assert len(endpoint.requests) == 1


# ------------------------------------------------------------------------------------------------ the end


def stopped_within(team: Team, seconds: float, before: float) -> None:
    """Closes the client `before` seconds into a call, which then ends soon."""
    raised: list[type[BaseException]] = []

    def work() -> None:
        try:
            team.ask()
        except BaseException as error:
            raised.append(type(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(before)
    assert not raised
    team.client.close()
    thread.join(seconds)
    assert raised == [Stopped]


@pytest.mark.parametrize("reply", [hang(30), drip(30), drip(30, part="head")], ids=["hang", "body", "head"])
def test_closing_ends_what_is_being_asked(reply: Reply) -> None:
    with Endpoint(always(reply)) as endpoint:
        team = Team(endpoint.base_url, timeout_seconds=60)
        stopped_within(team, 2, before=0.3)
        assert team.kinds == ["stopped"]
        assert team.events[0]["tokens_out"] == 256, "it may have been written"
        with pytest.raises(Stopped):
            team.ask()
        assert len(endpoint.requests) == 1


def test_closing_ends_a_pause() -> None:
    with Endpoint(always(status(429, {"Retry-After": "50"}))) as endpoint:
        stopped_within(Team(endpoint.base_url), 2, before=0.3)


def test_closing_ends_the_wait_for_a_place_and_for_a_moment() -> None:
    with Endpoint(always(hang(30))) as endpoint:
        team = Team(endpoint.base_url, concurrency=1, timeout_seconds=60)
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(team.ask, number=1)
            stopped_within(team, 2, before=0.3)
            assert isinstance(busy.exception(2), Stopped)
    with Endpoint(always(text("hello"))) as endpoint:
        team = Team(endpoint.base_url, calls_per_minute=1)
        team.ask(number=1)
        stopped_within(team, 2, before=0.1)


# ------------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize(
    "reply",
    [
        echo_headers(),
        echo_headers(401),
        echo_headers(500),
        raw(f"Bearer {KEY}".encode()),
        raw(json.dumps({"choices": KEY, "error": KEY}).encode()),
        status(400, {"X-Echo": KEY}, body="{" + KEY.replace("/", "\\/") + "}"),
        status(400, body=json.dumps({"error": {"message": "x" * 290 + KEY}})),
        half(),
        hang(30),
    ],
)
def test_the_key_is_in_nothing(reply: Reply, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    raised = ""
    with Endpoint(always(reply)) as endpoint:
        team = Team(endpoint.base_url, retries=1, timeout_seconds=0.3)
        try:
            team.ask()
        except Unavailable as error:
            raised = "".join(traceback.format_exception(error)) + repr(error)
            assert error.__context__ is None, "no error of the library, which has the request, hangs on ours"
        assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"
    seen = json.dumps([team.events, team.kept]) + raised + caplog.text + repr(team.client) + "".join(capfd.readouterr())
    for secret in (KEY, KEY[: len(KEY) // 2], "secret-of"):
        assert secret not in seen
    assert not [record for record in caplog.records if record.name.startswith(("openai", "httpx", "httpcore"))]


def test_a_word_in_place_of_a_key_stays_a_word_of_the_answer() -> None:
    with Endpoint(always(text("none of it"))) as endpoint:
        assert Team(endpoint.base_url, key="none").ask() == "none of it"


def test_the_key_leaves_the_environment() -> None:
    environ = {"TEAM_KEY": KEY, "HOME": "/"}
    assert key_of(LlmSettings(key_env="TEAM_KEY"), environ) == KEY
    assert environ == {"HOME": "/"}


def test_a_local_server_needs_no_key() -> None:
    assert key_of(LlmSettings(base_url="http://127.0.0.1:8000/v1"), {"OPENAI_API_KEY": ""}) == "none"


def test_openai_needs_one() -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        key_of(LlmSettings(), {})


@pytest.mark.parametrize("letter", ["\n", " ", "\x00", "é", "\x7f"])
def test_a_key_that_no_header_takes(letter: str) -> None:
    with pytest.raises(UserError, match="TEAM_KEY") as caught:
        key_of(LlmSettings(key_env="TEAM_KEY"), environ := {"TEAM_KEY": KEY + letter})
    assert KEY not in str(caught.value)
    assert environ == {}


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{KEY}@example.org/v1",
        f"https://{KEY}@example.org/v1",
        f"https://example.org/v1?key={KEY}",
        f"ftp://example.org/{KEY}",
        f"example.org/{KEY}",
        "http://[::1/v1",
        "http://example.org:port/v1",
    ],
)
def test_an_address_that_is_none_or_holds_a_secret(address: str) -> None:
    settings = LlmSettings(base_url=address)
    with pytest.raises(UserError, match=r"llm\.base_url") as caught:
        key_of(settings, {})
    assert KEY not in str(caught.value)
    with pytest.raises(UserError):
        Client(settings, KEY, Spending(settings), print, print)


@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("http://127.0.0.1:8000/v1", {"ALL_PROXY": "socks5://127.0.0.1:1080"}),
        ("http://127.0.0.1:8000/v1", {"HTTP_PROXY": "ftp://user:secret-of-proxy@127.0.0.1:21"}),
        ("https://example.org/v1", {"SSL_CERT_FILE": "/no/such/file.pem"}),
        ("http://127.0.0.1:8000/v1\n", {}),
        (f"http://{70 * 'é'}.example.org/v1", {}),
    ],
    ids=["socks", "ftp", "certificates", "line break", "long label"],
)
def test_an_endpoint_that_the_library_cannot_address(
    address: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^the endpoint can't be addressed: ") as caught:
        Team(address)
    assert "\n" not in str(caught.value) and "secret-of" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "nas.llm.transport", raising=False)
    with pytest.raises(UserError, match=r"pip install 'nas\[llm\]'"):
        Team("http://127.0.0.1:8000/v1")
