"""The works of the language models as MLflow traces: one trace a work, one span a call. Pure.

A work is a proposal ("p0003"), the analysis of a trial ("a-t0012") or the evolution of a prompt ("e0001"). Its trace
appears with its first call, grows with each, and ends with what came of it. Works without a call have none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas.tracking import words
from nas.tracking.writes import Event, Search, Span, TraceWrite, Usage

PREVIEW_CHARACTERS = 1_000
TEXT_CHARACTERS = 200_000  # of one message: beyond any context, and no endpoint fills a store with one answer
TRACE_TAG_CHARACTERS = 4_000  # MLflow takes 4,096


@dataclass
class _Work:
    """What is known of one work so far. Of its calls only the last is kept, since prompts are long."""

    name: str
    drawn: Event = field(default_factory=dict)
    calls: int = 0
    last: Span | None = None
    last_number: Any = None  # the journal's, of the last call
    start_ns: int = 0
    end_ns: int = 0
    seen: dict[str, dict[str, None]] = field(default_factory=dict)  # roles, models and prompts, in order
    usage: Usage = field(default_factory=Usage)
    result: str = ""  # the last answer, or why there was none; at the end what came of the work
    state: str = "IN_PROGRESS"
    trial: str | None = None


class Traces:
    """From the events so far to the next additions to traces. The same events give the same, times included."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._works: dict[str, _Work] = {}
        self._trials: set[str] = set()
        self._handlers: dict[Any, Callable[[Event], list[TraceWrite]]] = {
            "draw": self._draw,
            "completion": self._call,
            "call_failed": self._call,
            "unusable": self._unusable,
            "no_proposal": self._no_proposal,
            "ask": self._ask,
            "analysis": self._analysis,
            "prompt": self._prompt,
        }

    def writes(self, event: Event) -> list[TraceWrite]:
        """What `event` adds; nothing for an event that is about no work."""
        kind = event.get("event")
        return self._handlers[kind](event) if isinstance(kind, str) and kind in self._handlers else []

    def _draw(self, event: Event) -> list[TraceWrite]:
        if work := self._work(event.get("work")):
            work.drawn = event
        return []

    def _call(self, event: Event) -> list[TraceWrite]:
        work, time = self._work(event.get("work")), words.number(event.get("time"))
        if work is None or time is None:
            return []
        span = _call_span(work.calls + 1, event, time)
        work.start_ns = min(work.start_ns, span.start_ns) if work.calls else span.start_ns
        work.end_ns = max(work.end_ns, span.end_ns)
        work.calls, work.last, work.last_number = span.number, span, event.get("call")
        work.usage += span.usage
        if work.state == "IN_PROGRESS":
            work.result = span.error or words.clean(event.get("text"))
        for name in ("role", "model", "prompt"):
            if value := words.clean(event.get(name)):
                work.seen.setdefault(name, {})[value] = None
        return [self._write(work, (span,))]

    def _unusable(self, event: Event) -> list[TraceWrite]:
        """The answer to the last call could not be used: its span says why."""
        work = self._work(event.get("work"))
        if work is None or work.last is None or work.last_number != event.get("call"):
            return []
        why = {"unusable": words.clean(event.get("kind")), "unusable.reason": words.clean(event.get("reason"))}
        work.last = replace(work.last, attributes={**work.last.attributes, **why})
        return [self._write(work, (work.last,))]

    def _no_proposal(self, event: Event) -> list[TraceWrite]:
        reason = words.clean(event.get("reason"))
        return self._end(event.get("work"), {"no candidate": reason}, error=reason or "no candidate")

    def _ask(self, event: Event) -> list[TraceWrite]:
        trial = words.clean(event.get("trial"))
        if not trial:
            return []
        self._trials.add(trial)
        candidate = words.clean(words.mapping(event.get("candidate")).get("id"))
        return self._end(event.get("work"), {"trial": trial, "candidate": candidate}, trial)

    def _analysis(self, event: Event) -> list[TraceWrite]:
        trial = words.clean(event.get("trial"))
        said = {name: words.clean(event.get(name)) for name in ("by", "verdict", "effect", "text")}
        return self._end(f"a-{trial}", said, trial if trial in self._trials else None)

    def _prompt(self, event: Event) -> list[TraceWrite]:
        return self._end(event.get("work"), {"prompt": words.clean(event.get("name"))})

    def _end(
        self, name: Any, outputs: Mapping[str, str], trial: str | None = None, error: str | None = None
    ) -> list[TraceWrite]:
        """The end of the work `name`, if it had a call: what came of it, and whose run it belongs to."""
        work = self._work(name)
        if work is None or not work.calls:
            return []
        whole = Span(0, _title(work), work.start_ns, work.end_ns, _plan(work.drawn), dict(outputs), error=error)
        work.trial, work.result = trial, error or " ".join(outputs.values())
        ended = replace(self._write(work, (whole,)), state="OK" if error is None else "ERROR")
        work.state, work.last = ended.state, None
        return [ended]

    def _work(self, name: Any) -> _Work | None:
        name = words.clean(name)[:200]
        return self._works.setdefault(name, _Work(name)) if name else None

    def _write(self, work: _Work, spans: tuple[Span, ...]) -> TraceWrite:
        seen = {name: ", ".join(values) for name, values in work.seen.items()}
        tags = words.tags({"work": work.name, "operator": work.drawn.get("operator"), **seen})
        return TraceWrite(
            self._search,
            work.name,
            _title(work),
            work.start_ns,
            work.end_ns,
            request=_request(work)[:PREVIEW_CHARACTERS],
            response=work.result[:PREVIEW_CHARACTERS],
            usage=work.usage,
            tags={name: value[:TRACE_TAG_CHARACTERS] for name, value in tags.items()},
            spans=spans,
            state=work.state,
            trial=work.trial,
            amends=work.state != "IN_PROGRESS",
        )


def _call_span(number: int, event: Event, time: float) -> Span:
    """One call, answered or failed. The journal stamps it when it is over."""
    role, model = words.clean(event.get("role")), words.clean(event.get("model"))
    seconds = min(max(words.number(event.get("seconds")) or 0.0, 0.0), time)
    known = {name: words.clean(event.get(name)) for name in ("role", "model", "prompt", "finish", "kind")}
    error = None
    if event.get("event") == "call_failed":
        error = f"{known['kind']}: {words.clean(event.get('reason'))}"[:PREVIEW_CHARACTERS]
    return Span(
        number,
        f"{role or 'call'} {words.clean(event.get('call'))}"[:200],
        int(1e9 * (time - seconds)),
        int(1e9 * time),
        _asked(event),
        {"error": error} if error is not None else _message("assistant", event.get("text")),
        model,
        Usage(_count(event.get("tokens_in")), _count(event.get("tokens_out")), _amount(event.get("dollars"))),
        {
            **{name: value for name, value in known.items() if value},
            "status": "failed" if error is not None else "answered",
            "estimated": event.get("estimated") is True,
            "again": event.get("again") is True,
        },
        error,
    )


def _asked(event: Event) -> dict[str, Any]:
    """The messages where they are known, and else the prompt's hash, by which they are found."""
    messages = words.mappings(event.get("messages"))
    if not messages:
        return {"prompt": words.clean(event.get("prompt"))}
    return {"messages": [_message(message.get("role"), message.get("content")) for message in messages]}


def _message(role: Any, text: Any) -> dict[str, str]:
    """One message as MLflow's page knows it. It draws the text as Markdown, so that stands in a block of code."""
    return {"role": words.clean(role), "content": words.fence(words.clean(text)[:TEXT_CHARACTERS])}


def _plan(drawn: Event) -> dict[str, Any]:
    """What was drawn for a proposal: operator, parents, and what the model was shown."""
    plan = words.mapping(drawn.get("plan"))
    shown = {name: plan.get(name) for name in ("kind", "inspirations", "notes", "lessons")}
    drawn = {name: drawn.get(name) for name in ("operator", "parents", "repair_of")}
    return {name: _cleaned(value) for name, value in {**drawn, **shown}.items() if value}


def _cleaned(value: Any) -> str | list[str]:
    return [words.clean(item) for item in value] if isinstance(value, list | tuple) else words.clean(value)


def _title(work: _Work) -> str:
    return f"{work.name} {words.clean(work.drawn.get('operator'))}".strip()[:200]


def _request(work: _Work) -> str:
    """What the work was for, in a line."""
    plan = _plan(work.drawn)
    if not plan:
        return work.name
    parents = plan.get("parents") or plan.get("repair_of") or ""
    return f"{plan.get('kind', 'change')} of {', '.join(parents) if isinstance(parents, list) else parents}"


def _count(value: Any) -> int:
    return int(_amount(value))


def _amount(value: Any) -> float:
    """`value` as a finite amount that fits a database's column; nothing where it is none."""
    number = words.number(value) or 0.0
    return number if 0 <= number < 2**31 else 0.0
