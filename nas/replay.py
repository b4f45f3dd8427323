"""An earlier search once more: its proposals at the same points, from its journal, without asking anybody again.

What a search does depends on its settings, on the outcomes of its trials, and on what came from a proposer and when.
The first two happen again by themselves; the record of the third is followed here. So with one worker the new journal
is the old one but for clocks. With several, trials may end in another order: then it goes on for as long as the
proposals are the recorded ones all the same. What a person changed on a resume (a cap, the number of trials) is not
followed: there the replay departs from such a record, and says so.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nas.journal import Event

RECORD_ENDS = "the record ends here"  # a search's reason to end
_ENGINE = ("ask", "rung", "trial", "noise")  # what happens again by itself; the rest is followed
_GIVEN = ("draw", "notice", "guest")  # told again when its turn has come, whoever told it first
_APART = ("search", "resume", "end", "review", "verified", "ablation", "lost")
_CLOCKS = ("time", "seconds", "tokens_per_second", "peak_bytes")  # and whatever ends in _seconds
_WHERE = ("name", "machine", "sources")  # of a search's first event: a replay may be elsewhere, and later
_DERIVED = "family"  # of an `ask`: follows from the candidate, and older records lack it
_OWN = ("name", "results_dir", "notes_dir", "resume", "proposer", "execution", "tracking", "sandbox", "budget", "llm")


class Script:
    """The record of a search, and how far it has been followed. Runs jobs at once, in the thread that begins them.

    Attributes:
      departed: where the new search is no longer the recorded one, in a sentence; None while it is.
    """

    def __init__(self, events: Sequence[Event]):
        self._events = [event for event in events if event["event"] not in _APART]
        self._end = next((str(event["reason"]) for event in reversed(events) if event["event"] == "end"), "killed")
        self._left: dict[Any, deque[int]] = defaultdict(deque)  # key -> where it is in the record
        for index, event in enumerate(self._events):
            self._left[_key(event)].append(index)
        self._seen = [False] * len(self._events)
        self._at = 0
        self._kept: dict[str, deque[Event]] = defaultdict(deque)  # work -> events that its job made, not told yet
        self._told: dict[str, int] = defaultdict(int)  # work -> how many were told
        self._made: dict[str, int] = defaultdict(int)  # work -> how many its job has made
        self.departed: str | None = None

    def saw(self, event: Event) -> None:
        """Takes in what happened in the new search."""
        if event["event"] in _APART:
            return
        indices = self._left[_key(event)]
        if not indices:
            # A scheduler may let a trial go further where others ended in another order; older records lack the others.
            if event["event"] not in ("rung", "noise") and event.get("tripwire") != "fidelity":
                self._depart(f"the record has no such event as {_in_words(event)}")
            return
        index = indices.popleft()
        self._seen[index] = True
        recorded = self._events[index]
        if event["event"] == "ask" and event["candidate"]["id"] != recorded["candidate"]["id"]:
            self._depart(f"{_in_words(event)} has another candidate")
        if event["event"] == "trial":  # a scheduler may have stopped it earlier
            for position, other in enumerate(self._events):
                self._seen[position] |= other["event"] == "rung" and other["trial"] == event["id"]
        if event["event"] not in (*_ENGINE, *_GIVEN) and event.get("cause") != "patience":
            self._told[_work(event)] += 1

    def next_event(self) -> Event | None:
        """What is told next; None if a trial, or a worker, has to come first. A draw is only announced."""
        while (event := self._next()) and event["event"] not in _ENGINE:
            if event["event"] in _GIVEN or event.get("cause") == "patience":
                return {name: value for name, value in event.items() if name != "time"}
            if kept := self._kept[_work(event)]:
                return kept.popleft()
            if event["event"] == "analysis":
                return None  # by rules, when the search was closed
            self._depart(f"nothing became of {_in_words(event)}")
            self._seen[self._at] = True
        return None

    def next_work(self) -> str | None:
        """The work whose proposal is handed out next; None if that is the grammar's, or no proposal."""
        event = self._next()
        return event.get("work") if event and event["event"] == "ask" else None

    def waits(self, running: bool, stop: Callable[[str], None]) -> bool:
        """Whether nothing is to be handed out now. At the end of the record, and beside it, the search is stopped."""
        event = self._next()
        if event is None and self._end != "trials":
            stop(f"{RECORD_ENDS} ({self._end})")
        elif event is not None and event["event"] in ("rung", "trial") and not running:
            self._depart(f"{_in_words(event)} did not happen")
        if self.departed:
            stop(f"the replay departs from the record: {self.departed}")
        return self.departed is not None or (event is not None and event["event"] in ("rung", "trial"))

    def keeps(self, event: Event) -> bool:
        """Whether it is the background that tells this event."""
        return event["event"] not in (*_ENGINE, *_APART)

    def keep(self, event: Event) -> None:
        """Keeps what a job tells until it is that event's turn."""
        work = _work(event)
        self._made[work] += 1
        if self._made[work] > self._told[work]:  # else it was told before an interruption of the replay itself
            self._kept[work].append(event)

    def begin(self, work: str, job: Callable[[], Any], done: Callable[[str, Any], None]) -> None:
        try:
            result = job()
        except Exception as error:
            result = error
        done(work, result)

    def close(self) -> None:
        """Nothing runs between two calls."""

    def _next(self) -> Event | None:
        while self._at < len(self._events) and self._seen[self._at]:
            self._at += 1
        return self._events[self._at] if self._at < len(self._events) else None

    def _depart(self, sentence: str) -> None:
        self.departed = self.departed or sentence


def _key(event: Event) -> tuple[Any, ...]:
    """What names an event in its journal."""
    names = ("id", "trial", "work", "call", "step", "tripwire")
    return (event["event"], *(event.get(name) for name in names))


def _work(event: Event) -> str:
    return str(event.get("work") or f"a-{event.get('trial')}")


def _in_words(event: Event) -> str:
    names = [str(event[name]) for name in ("id", "trial", "work", "step") if event.get(name) is not None]
    return " ".join([str(event["event"]), *names])


def difference(recorded: Iterable[Event], replayed: Iterable[Event]) -> str | None:
    """Where two journals differ in anything but clocks, and in what a replay may choose; None if nowhere.

    Of a record that was killed, and so has no end, as far as it goes.
    """
    ours, theirs = (
        [_bare(event) for event in events if event["event"] not in ("resume", "review", "verified", "ablation", "lost")]
        for events in (replayed, recorded)
    )
    if theirs and theirs[-1]["event"] != "end":
        ours = ours[: len(theirs)]
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False), 1):
        if mine != other:
            names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
            return f"event {number} ({_in_words(other)}) differs in {', '.join(sorted(names))}"
    if len(ours) != len(theirs):
        return f"the record has {len(theirs)} events, the replay {len(ours)}"
    return None


def _bare(value: Any) -> Any:
    """Without what two runs on one machine differ in."""
    if isinstance(value, Mapping):
        if value.get("event") == "search":
            config = {name: setting for name, setting in value["config"].items() if name not in _OWN}
            value = {**{name: item for name, item in value.items() if name not in _WHERE}, "config": config}
        elif value.get("event") == "ask":
            value = {name: item for name, item in value.items() if name != _DERIVED}
        return {name: _bare(item) for name, item in value.items() if not _is_clock(name)}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


def _is_clock(name: str) -> bool:
    return name in _CLOCKS or name.endswith("_seconds")
