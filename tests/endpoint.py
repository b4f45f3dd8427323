"""An OpenAI-compatible endpoint over real HTTP, which answers as a test tells it to, and misbehaves by turns.

with Endpoint(lambda request, number: status(429) if number == 0 else text("hello")) as endpoint:
    ...  # ask endpoint.base_url
assert endpoint.requests[1]["model"] == "tiny"
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Request(dict[str, Any]):
    """The parsed body of a POST, with its `headers` (names in lower case), `path` and when it `arrived` (monotonic)."""

    def __init__(self, body: Mapping[str, Any], headers: Mapping[str, str], path: str):
        super().__init__(body)
        self.headers = headers
        self.path = path
        self.arrived = time.monotonic()


@dataclass
class Exchange:
    """What a reply has at hand: the request, and the connection it is to be answered on."""

    request: Request
    handler: BaseHTTPRequestHandler
    stopping: threading.Event

    def head(self, code: int, headers: Mapping[str, str]) -> None:
        self.handler.send_response(code)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def write(self, data: bytes) -> None:
        self.handler.wfile.write(data)

    def whole(self, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """One proper HTTP response."""
        length = {"Content-Length": str(len(body))}
        self.head(code, {"Content-Type": "application/json", **length, **(headers or {})})
        self.write(body)

    def wait(self, seconds: float) -> None:
        self.stopping.wait(seconds)

    def hang_up(self) -> None:
        self.handler.close_connection = True


Reply = Callable[[Exchange], None]


def completion(request: Mapping[str, Any], content: str | None, **changes: Any) -> dict[str, Any]:
    """A chat.completion for `request`. `finish` and `usage` replace those that it has, other changes its own keys."""
    prompt = sum(len(str(message["content"])) for message in request.get("messages", ()))
    tokens = {"prompt_tokens": -(-prompt // 4), "completion_tokens": -(-len(content or "") // 4)}
    finish = changes.pop("finish", "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": request.get("model", ""),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
        **changes,
    }


def text(content: str, **changes: Any) -> Reply:
    """A completion with this text; `changes` as in `completion`."""
    return lambda exchange: exchange.whole(200, json.dumps(completion(exchange.request, content, **changes)).encode())


def empty() -> Reply:
    """A completion without any content."""
    return text("")


def raw(body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Status 200 with any body."""
    return lambda exchange: exchange.whole(200, body, headers)


def not_json() -> Reply:
    """Status 200 with a page for people, as a proxy sends it."""
    return raw(b"<html><body>It works!</body></html>", {"Content-Type": "text/html"})


def status(code: int, headers: Mapping[str, str] | None = None, body: str | None = None) -> Reply:
    """An error. Without a `body` it is one as OpenAI writes it."""
    told = (
        body if body is not None else json.dumps({"error": {"message": f"status {code}", "type": "test", "code": None}})
    )
    return lambda exchange: exchange.whole(code, told.encode(), headers)


def hang(seconds: float) -> Reply:
    """Nothing for so long, then a completion."""

    def send(exchange: Exchange) -> None:
        exchange.wait(seconds)
        text("late")(exchange)

    return send


def half(chunked: bool = False) -> Reply:
    """Hangs up in the middle of a completion: short of its Content-Length, or before the last chunk."""

    def send(exchange: Exchange) -> None:
        body = json.dumps(completion(exchange.request, "the first half of an answer")).encode()
        part = body[: len(body) // 2]
        if chunked:
            exchange.head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
            exchange.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        else:
            exchange.head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
            exchange.write(part)
        exchange.hang_up()

    return send


def sse_half() -> Reply:
    """A stream of events that nobody asked for, broken off inside the second."""

    def send(exchange: Exchange) -> None:
        piece = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "the first"}}]}
        events = 2 * f"data: {json.dumps(piece)}\n\n"
        exchange.head(200, {"Content-Type": "text/event-stream", "Connection": "close"})
        exchange.write(events[: len(events) * 3 // 4].encode())
        exchange.hang_up()

    return send


def enormous(size: int, code: int = 200) -> Reply:
    """A completion (or an error) of `size` bytes of text."""

    def send(exchange: Exchange) -> None:
        mark = "#"
        told = completion(exchange.request, mark) if code == 200 else {"error": {"message": mark}}
        before, after = json.dumps(told).split(f'"{mark}"')
        length = str(len(before) + size + len(after) + 2)
        exchange.head(code, {"Content-Type": "application/json", "Content-Length": length})
        exchange.write(before.encode() + b'"')
        for start in range(0, size, 1 << 16):
            exchange.write(b"x" * min(1 << 16, size - start))
        exchange.write(b'"' + after.encode())

    return send


def drip(seconds: float, pause: float = 0.05, part: str = "body") -> Reply:
    """One byte each `pause` for so long, of the response's "body" or already of its "head"; then hangs up."""

    def send(exchange: Exchange) -> None:
        if part == "body":
            exchange.head(200, {"Content-Type": "application/json", "Content-Length": "1000000"})
        else:
            exchange.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not exchange.stopping.is_set():
            exchange.write(b" " if part == "body" else b"x")
            exchange.wait(pause)
        exchange.hang_up()

    return send


def early_hints() -> Reply:
    """Informational responses without end, and never the one that counts."""

    def send(exchange: Exchange) -> None:
        while not exchange.stopping.is_set():
            exchange.write(b"HTTP/1.1 103 Early Hints\r\nLink: </next>\r\n\r\n" * 100)

    return send


def echo_headers(code: int = 200) -> Reply:
    """The request's own headers, the key among them: as a completion's text, or in an error's message and headers."""

    def send(exchange: Exchange) -> None:
        told = json.dumps(dict(exchange.request.headers))
        if code == 200:
            text(told, model=told, finish=told)(exchange)
        else:
            error = {"error": {"message": told, "code": told, "type": told}}
            echoed = {"X-Echo": exchange.request.headers.get("authorization", "")}
            exchange.whole(code, json.dumps(error).encode(), echoed)

    return send


class Endpoint:
    """Serves on 127.0.0.1 while its `with` block runs; leaving it ends every reply that still hangs.

    `answer(request, number)` chooses the reply to the POST of that number, from 0, in a thread of its own.

    Attributes:
      base_url: for `llm.base_url`.
      requests: every POST that arrived, in order.
    """

    def __init__(self, answer: Callable[[Request, int], Reply], models: tuple[str, ...] = ("tiny",)):
        self.requests: list[Request] = []
        self._answer = answer
        self._models = models
        self._errors: list[Exception] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops. Raises what `answer` raised, unless the block itself failed."""
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        if self._errors and error is None:
            raise self._errors[0]

    def _take(self, request: Request) -> int:
        with self._lock:
            self.requests.append(request)
            return len(self.requests) - 1

    def _reply(self, request: Request, number: int) -> Reply:
        try:
            return self._answer(request, number)
        except Exception as error:
            self._errors.append(error)
            return status(500)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                with endpoint._lock:
                    endpoint._connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                with endpoint._lock:
                    endpoint._connections.discard(self.request)
                with suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                found = self.path == "/v1/models"
                models = [
                    {"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in endpoint._models
                ]
                body = {"object": "list", "data": models} if found else {"error": {"message": "not here"}}
                exchange = Exchange(Request({}, {}, self.path), self, endpoint._stopping)
                exchange.whole(200 if found else 404, json.dumps(body).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(body, headers, self.path)
                endpoint._reply(request, endpoint._take(request))(Exchange(request, self, endpoint._stopping))

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing: the tests look at what is logged."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what half of the tests are about."""
