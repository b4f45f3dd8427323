"""How text that nobody vouches for enters a prompt: as data, between marks that the text cannot contain.

Candidates, error messages, notes and lessons may say anything, "ignore what you were told" included. Marks do not make
a model immune to that; they say where data begins and ends, and nothing that a model answers is obeyed by the engine.
"""

import hashlib
import re

# What chat templates put between turns: many servers read it in a message's text as if they had written it themselves.
# DeepSeek's have fullwidth bars (U+FF5C), and angle quotation marks are read as angle brackets here and there.
_TURNS = re.compile(
    r"[<\u2039][|\uff5c]|[|\uff5c][>\u203a]"
    r"|(?i:</?(?:s|bos|eos|start_of_turn|end_of_turn|im_start|im_end|think|tool_call|tool_response)>)"
    r"|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"  # `x[inst]` is Python
)
_NAME_DIGITS = 6  # of the text's SHA-256, more where the text itself contains the mark
_KEPT = "\n\t"


def quoted(text: str, label: str, limit: int) -> str:
    """`text` between two marks that name it, without control characters, cut in the middle beyond `limit` characters.

    Chat templates' marks are broken up, as `disarmed` does.

        [[begin parent 5a75ae81ef2a #3f9c2b]]
        ...
        [[end parent 5a75ae81ef2a #3f9c2b]]

    Args:
      label: what it is, e.g. "parent 5a75ae81ef2a"; letters, digits, spaces and ".:_-" are kept of it.
      limit: characters of the text itself, the line that says what was cut not counted.
    """
    shown = cut(disarmed(text), limit)
    label = " ".join("".join(c if c.isalnum() or c in ".:_-" else " " for c in cleaned(label)).split())
    name = _name(shown)
    return f"[[begin {label} #{name}]]\n{shown}\n[[end {label} #{name}]]"


def disarmed(text: str) -> str:
    """`cleaned` text in which what a chat template would read as the end of a turn is broken up.

    `<|im_end|>` becomes `< |im_end| >`, `[INST]` becomes `[ INST]`.
    """
    return _TURNS.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", cleaned(text))


def cleaned(text: str) -> str:
    """`text` with line breaks of one kind and nothing that can't be seen.

    Control characters, lone surrogates, zero-width and bidirectional letters go, unusual spaces become spaces: a person
    should see what a model is shown.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c in _KEPT or c.isprintable() else " " * c.isspace() for c in lines)


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning and end with a line between them that says how much is missing."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    head = limit - tail
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[len(text) - tail :]}"


def _name(text: str) -> str:
    """Hexadecimal digits of the text's hash, as many as it takes not to stand in the text."""
    digits = hashlib.sha256(text.encode()).hexdigest()
    lengths = (n for n in range(_NAME_DIGITS, len(digits)) if f"#{digits[:n]}" not in text)
    return digits[: next(lengths, len(digits))]
