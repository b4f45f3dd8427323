"""What became of one request to an endpoint, an `Answer` or a `Failure`; and a server's words made safe to keep."""

import json
from dataclasses import dataclass

from nas.terminal import printable

_REASON = 300  # characters of a reason: one line in a journal and on a screen
_SECRET = 8  # characters from which a key is a secret: "none" and "EMPTY" are words that code may hold


@dataclass(frozen=True)
class Answer:
    """A completion. `tokens_in` and `tokens_out` are the server's count, None where it gives none to believe."""

    text: str
    finish: str
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True)
class Failure:
    """An attempt that brought no text.

    Attributes:
      kind: "rate limit" | "server" | "timeout" | "connection" | "broken" | "too large" | "empty" | "authentication" |
        "not found" | "refused" | "stopped" (ended by ourselves).
      reason: one printable line.
      charged: whether the server may have taken the whole prompt, and be paid for what it wrote.
      retry_after: seconds that the server asks to be left alone.
      tokens_in, tokens_out: the server's count, if an answer came.
      invalid: the server understood the request, and some field of it is not to its liking.
    """

    kind: str
    reason: str
    charged: bool = False
    retry_after: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    invalid: bool = False


def redacted(text: str, key: str) -> str:
    """`text` without the key: servers echo headers, in errors and in completions. Also as JSON may write it."""
    if len(key) >= _SECRET:
        for form in (key, json.dumps(key)[1:-1], key.replace("/", "\\/")):
            text = text.replace(form, "[key]")
    return text


def reason(text: str, key: str) -> str:
    """One printable line of a server's words. The key goes before the cut: a part of it would be no longer found."""
    return printable(redacted(text, key))[:_REASON]
