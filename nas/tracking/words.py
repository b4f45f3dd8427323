"""Text and numbers of events as MLflow takes them, and as its pages show them: whatever stands in them is text."""

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from nas.tracking.writes import STATUS, Event, Search

PARAM_CHARACTERS = 500
TAG_CHARACTERS = 7_900  # MLflow cuts at 8,000, in the middle of whatever stands there


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def search_of(begun: Event) -> Search:
    """Which search it is that begins with this event."""
    time = number(begun.get("time"))
    return Search(clean(begun.get("name", "search"))[:200], "unknown" if time is None else f"{time:.3f}")


def outcome(event: Event) -> Mapping[str, Any]:
    """The outcome of a trial event, or nothing if it is of no known kind."""
    outcome = mapping(event.get("outcome"))
    return outcome if outcome.get("kind") in tuple(STATUS) else {}


def measured(fitness: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured once, beside the curve of bits per byte."""
    names = (
        *("score", "stderr", "held_out_bits_per_byte", "held_out_stderr"),
        *("tokens_per_second", "peak_bytes", "flops_per_token", "params"),
    )
    probes = mapping(fitness.get("probes"))
    return {name: fitness.get(name) for name in names} | {f"probe.{name}": value for name, value in probes.items()}


def number(value: Any) -> float | None:
    """`value` as a finite float, or None: what is not a number is never a metric."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def numbers(values: Any) -> dict[str, float]:
    pairs = ((str(name), number(value)) for name, value in mapping(values).items())
    return {name: number for name, number in pairs if number is not None}


def encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def clean(value: Any) -> str:
    """`value` as text without control characters, terminal escapes and lone surrogates; None is empty."""
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return re.sub(r"[^\n\t -~\xa0-\U0010ffff]", "", encodable(text.replace("\r\n", "\n")))


def pretty_json(value: Any) -> str:
    return encodable(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def join(values: Any) -> str:
    return ", ".join(clean(value) for value in values) if isinstance(values, list | tuple) else ""


def key(name: str) -> str:
    """`name` as MLflow takes it for a metric or parameter."""
    return re.sub(r"[^\w.\- ]", "_", name)[:250].strip() if name.strip(". ") else "_"


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested config to dotted keys; a list stays one value."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            flat[key(f"{prefix}{name}")] = clean(text)
    return flat


def tags(values: Mapping[str, Any]) -> dict[str, str]:
    return {key(name): cut(clean(value)) for name, value in values.items() if value is not None}


def cut(text: str, note: str = " (cut)") -> str:
    return text if len(text) <= TAG_CHARACTERS else text[: TAG_CHARACTERS - len(note)] + note


def escape(value: Any) -> str:
    """Text that Markdown shows as it is, in one line: no markup, links, images, mentions or table cells of its own.

    Entities rather than backslashes: MLflow's renderer (Showdown, which lets `img` and `iframe` pass) leaves the
    backslash standing before half of the punctuation.
    """
    text = re.sub(r"[&<>`*_{}\[\]#~|!\\@:$\"]", lambda match: f"&#{ord(match[0])};", clean(value))
    return " ".join(text.replace("www.", "www&#46;").split())


def told(value: Any, most: int) -> str:
    """`escape` of no more than so many characters."""
    text = escape(clean(value)[:most])
    if len(text) <= most:
        return text
    return re.sub(r"&#?\w*$", "", text[: most - 3]) + "..."  # not in the middle of an entity


def gain(interval: Any) -> str:
    """A verified gain with its interval, or a word that there is none."""
    mean, low, high = (number(mapping(interval).get(name)) for name in ("mean", "low", "high"))
    if mean is None:
        return "no gain was measured"
    seeds = number(mapping(interval).get("count"))
    over = "" if seeds is None else f" (n={seeds:g})"
    if low is None or high is None:
        return f"{mean:+.4f}{over}, no interval"
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]{over}"


def fence(text: str) -> str:
    """A code block that `text` cannot end."""
    text = re.sub(r"`{17,}|~{17,}", lambda match: match[0][:16] + "...", text)  # else the fence would be as long
    longest = max((len(run) for run in re.findall(r"`+|~+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{text}\n{ticks}"


def last_lines(text: str, most: int) -> str:
    """The end of `text`, from the beginning of a line where there is one."""
    return text if len(text) <= most else text[-most:].partition("\n")[2] or text[-most:]


def first_lines(text: str, most: int) -> str:
    """The beginning of `text`, to the end of a line where there is one."""
    return text if len(text) <= most else text[:most].rpartition("\n")[0] or text[:most]


def diff(old: str, new: str, old_name: str | None, new_name: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"{old_name}.py", f"{new_name}.py", lineterm="")
    return encodable("\n".join(lines) + "\n")
