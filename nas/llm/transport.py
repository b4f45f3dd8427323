"""One request to an OpenAI-compatible endpoint, over the `openai` library. The only importer of it.

The library alone would wait for as long as a byte comes now and then, and read a body of any size. So each request has
a connection of its own, which is cut at its deadline or when the search ends, and a limit on what is read from it.
"""

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletion

from nas.errors import UserError
from nas.llm.outcomes import Answer, Failure, reason, redacted

_CONNECT_SECONDS = 10.0
_LONGEST_WAIT = 60.0  # seconds of a Retry-After that are honoured
_FRAMED = 2  # bytes that come in for one byte of the answer: room for its head, and for chunks of a few bytes
_MOST_TOKENS = 10**9  # no count of tokens in one answer: a server that says so counts something else
_STATUS = {401: "authentication", 403: "authentication", 404: "not found", 408: "server", 429: "rate limit"}
_UNADDRESSED = (httpx2.InvalidURL, ImportError, OSError, ValueError)  # ImportError: a SOCKS proxy needs a package
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.WriteError, httpx2.WriteTimeout, httpx2.ProxyError)
_TOO_LARGE = Failure("too large", "more than llm.max_tokens can be", charged=True)


class Transport:
    """Sends requests from any thread, until it is closed.

    Args:
      key: in no reason, text or log that comes of it.
      timeout_seconds: of one request, from connecting to the last byte of its answer.

    Raises:
      UserError: in one sentence, if the address, or a proxy or certificates of the environment, can't be used.
    """

    def __init__(self, base_url: str, key: str, timeout_seconds: float):
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._lines: set[_Line] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._mine = threading.local()  # `line`: of the request that this thread makes
        for name in ("openai", "httpx2", "httpcore2"):  # at DEBUG they write what servers send
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            self._api = self._library(base_url)
        except _UNADDRESSED as error:
            raise UserError(
                f"the endpoint can't be addressed: {self._reason(str(error))} "
                f"(see llm.base_url, and what the environment says of proxies and certificates)"
            ) from None

    def _library(self, base_url: str) -> openai.OpenAI:
        return openai.OpenAI(
            api_key=self._key,
            base_url=base_url,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},  # what is packed can be far larger than what is read
            http_client=httpx2.Client(
                timeout=httpx2.Timeout(self._timeout_seconds, connect=min(self._timeout_seconds, _CONNECT_SECONDS)),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
                follow_redirects=False,  # prompts go where the person said, and nowhere else
                event_hooks={"request": [self._watch], "response": [self._limit]},
            ),
        )

    def ask(self, body: Mapping[str, Any], extra_body: Mapping[str, Any], limit: int) -> Answer | Failure:
        """Sends a chat completion's `body`; reads at most `limit` bytes of what comes back."""
        with self._line(limit) as line:
            if line.failure is not None:
                return line.failure
            try:
                completion = self._api.chat.completions.create(**body, extra_body=dict(extra_body))
            except Exception as error:  # a server can bring any parser to any exception
                return line.failure or (self._failure(error) if line.watched else self._unsendable(error))
            return self._answer(completion)

    def close(self) -> None:
        """Ends what is being asked. No connection outlives its request, so there is nothing else to close."""
        with self._lock:
            self._closed = True
            lines = list(self._lines)
        for line in lines:
            line.cut(Failure("stopped", "the search ended first", charged=True))

    @contextmanager
    def _line(self, limit: int) -> Iterator["_Line"]:
        late = Failure("timeout", f"no whole answer in llm.timeout_seconds={self._timeout_seconds:g}", charged=True)
        line = _Line(limit)
        deadline = threading.Timer(self._timeout_seconds, line.cut, (late,))
        deadline.daemon = True
        with self._lock:
            if self._closed:
                line.cut(Failure("stopped", "the search ended first"))
            self._lines.add(line)
        self._mine.line = line
        deadline.start()
        try:
            yield line
        finally:
            deadline.cancel()
            with self._lock:
                self._lines.discard(line)

    def _watch(self, request: httpx2.Request) -> None:
        self._mine.line.watched = True
        request.extensions = {**request.extensions, "trace": self._mine.line.trace}

    def _limit(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            self._mine.line.cut(Failure("broken", "a packed answer, which was not asked for", charged=True))
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Limited(response.stream, self._mine.line)
        response.encoding = "utf-8"  # else a server names the codec, `bz2` for one, which undoes the limit

    def _unsendable(self, error: Exception) -> Failure:
        """A body that there is no JSON of: half a surrogate pair has none in UTF-8, say."""
        cause = error.__cause__ or error
        return Failure("refused", self._reason(f"the request can't be written: {type(cause).__name__}: {cause}"))

    def _failure(self, error: Exception) -> Failure:
        cause = error.__cause__ or error
        if isinstance(error, openai.APIStatusError):
            return self._refusal(error)
        if isinstance(cause, _UNSENT):
            return Failure("connection", self._reason(f"{type(cause).__name__}: {cause}"))
        if isinstance(cause, httpx2.TimeoutException):
            return Failure("timeout", f"nothing for {self._timeout_seconds:g} seconds", charged=True)
        return Failure("broken", self._reason(f"{type(cause).__name__}: {cause}"), charged=True)

    def _refusal(self, error: openai.APIStatusError) -> Failure:
        code = error.status_code
        kind = _STATUS.get(code, "server" if code >= 500 else "refused")
        told = error.body.get("message") if isinstance(error.body, dict) else None
        words = told if isinstance(told, str) else error.response.text
        return Failure(
            kind,
            self._reason(f"{code}: {words}"),
            retry_after=_retry_after(error.response.headers.get("retry-after", "")),
            invalid=code in (400, 422),
        )

    def _answer(self, completion: object) -> Answer | Failure:
        """Any server's idea of a completion: the library checks no types, so nothing here is known to be there."""
        if not isinstance(completion, ChatCompletion):
            return Failure("broken", self._reason(f"not a chat.completion: {completion}"), charged=True)
        usage = getattr(completion, "usage", None)
        tokens_in = _count(getattr(usage, "prompt_tokens", None))
        tokens_out = _count(getattr(usage, "completion_tokens", None), least=0)
        try:
            choice = completion.choices[0]
            content, finish = choice.message.content, self._reason(str(choice.finish_reason))[:40]
        except (AttributeError, TypeError, LookupError):
            told = (
                getattr(completion, "error", None) or "it says nothing of why"
            )  # some gateways put errors under a 200
            return Failure("broken", self._reason(f"a chat.completion without a message: {told}"), charged=True)
        if content is not None and not isinstance(content, str):
            return Failure("broken", f"a message whose content is of type {type(content).__name__}", charged=True)
        if not content or not content.strip():
            return Failure("empty", f"no text; finish: {finish}", True, tokens_in=tokens_in, tokens_out=tokens_out)
        whole = content.encode(errors="replace").decode()  # half a surrogate pair is no text to anyone after this
        return Answer(redacted(whole, self._key), finish, tokens_in, tokens_out or None)  # text is of some tokens

    def _reason(self, text: str) -> str:
        return reason(text, self._key)


class _Line:
    """The connection of one request. Cutting it, from any thread, wakes whoever waits for its next byte."""

    def __init__(self, limit: int):
        self.left = limit
        self._framed_left = _FRAMED * limit
        self.failure: Failure | None = None
        self.watched = False  # the request is written, and on its way
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Told of each step by the library; a connection made (and once more when it is encrypted) is a stream."""
        stream: Any = info.get("return_value")
        if not hasattr(stream, "get_extra_info"):
            return
        # The library tells nobody of what comes before the answer, "103 Early Hints" without end for one.
        stream.read = self._counting(stream.read)
        with self._lock:
            self._socket = stream.get_extra_info("socket")
            if self.failure is not None:
                self._shut()

    def _counting(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        def counted(*args: Any, **options: Any) -> bytes:
            piece = read(*args, **options)
            self._framed_left -= len(piece)
            if self._framed_left < 0:
                self.cut(_TOO_LARGE)
            return piece

        return counted

    def cut(self, failure: Failure) -> None:
        """Ends the request for this reason, unless it was ended for another."""
        with self._lock:
            self.failure = self.failure or failure
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Limited(httpx2.SyncByteStream):
    """The body of an answer, or of an error, as far as its line allows."""

    def __init__(self, stream: httpx2.SyncByteStream, line: _Line):
        self._stream = stream
        self._line = line

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._line.left -= len(piece)
            if self._line.left < 0:
                self._line.cut(_TOO_LARGE)
            if self._line.failure is not None:
                raise httpx2.ReadError(self._line.failure.reason)
            yield piece

    def close(self) -> None:
        self._stream.close()


def _count(value: object, least: int = 1) -> int | None:
    """A server's count of tokens, if it is one: some count nothing, and say 0."""
    return value if type(value) is int and least <= value <= _MOST_TOKENS else None


def _retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which has them as a number or as a date; 0 if it has neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else 0.0
