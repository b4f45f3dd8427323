"""What a person sees while a search runs: a live view in a terminal, a line for each result elsewhere.

Like everything else it is fed by the journal's events.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nas.journal import Event
from nas.tally import Tally
from nas.terminal import make_console, printable

_RECENT = 6
_REASON_LETTERS = 110
_AUTHOR_LETTERS = 40
_FOR_A_PERSON = frozenset({"authentication", "not found"})  # failures to mend; told once for each model
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")  # how the last line of a traceback begins


class Progress:
    """What has happened so far, as the events told it."""

    def __init__(self, trials: int, review: str = "nas review"):
        self.trials = trials
        self.review = review  # the command for held trials
        self.started = time.monotonic()
        self.ended = 0  # trials since then, copies left out
        self.outcomes: Counter[str] = Counter()
        self.proposals = 0
        self.best: dict[str, Event] = {}  # purpose -> the trial event
        self.running: dict[str, Event] = {}
        self.rungs: dict[str, Event] = {}
        self.weights: dict[str, float] = {}
        self.credit: dict[str, dict[str, float]] = {}
        self.guests = 0  # that other searches have trained
        self.waiting: dict[str, Event] = {}  # held trials that no person has decided on
        self.recent: list[str] = []
        self.llm = Tally()
        self._told: set[tuple[str, str]] = set()  # (model, kind) of the failures that were a line

    def take(self, event: Event) -> str | None:
        """Takes in an event; returns a line for it if it is worth one."""
        kind = event["event"]
        self.llm.take(event)
        if kind == "ask":
            self.running[event["trial"]] = event
            self.weights = event["weights"] or self.weights
        elif kind == "rung":
            self.rungs[event["trial"]] = event
        elif kind == "trial":
            return self._take_trial(event)
        elif kind == "guest":
            self.guests += 1
            return self._kept(f"{printable(event['id'])}  {title(event):40.40}  {describe(event)}")
        elif kind == "notice":
            return self._kept(f"{printable(event['tripwire'])}: {printable(event['reason'])}")
        elif kind == "lost":
            return self._kept(f"{printable(event['trial'])}: {printable(event['reason'])}: it goes on with another one")
        elif kind == "no_proposal":
            reason = _shortened(event["reason"])
            return self._kept(
                f"{printable(event['work'])}: no candidate from the LLM ({reason}): the grammar takes its place"
            )
        elif kind == "call_failed":
            return self._take_failure(event)
        elif kind == "review":
            self._take_review(event)
        elif kind == "resume":
            self.started, self.ended = time.monotonic(), 0
        return None

    def _take_failure(self, event: Event) -> str | None:
        """A failure that every call will meet is a line, once for each model; others are counted."""
        failure = (event["model"], event["kind"])
        if event["kind"] not in _FOR_A_PERSON or failure in self._told:
            return None
        self._told.add(failure)
        return self._kept(
            f"llm: {printable(event['model'])}: {printable(event['kind'])}: {_shortened(event['reason'])}"
        )

    def _take_trial(self, event: Event) -> str:
        asked = self.running.pop(event["id"], {})
        duplicate = asked.get("duplicate", False)
        self.ended += not duplicate
        self.rungs.pop(event["id"], None)
        outcome, purpose = event["outcome"], event["purpose"]
        self.credit = event["credit"]
        if purpose == "search":
            early = event["stopped"] and outcome["kind"] == "fitness"
            self.outcomes["stopped early" if early else outcome["kind"]] += 1
            self.proposals += not duplicate
        if outcome["kind"] == "held":
            self.waiting[event["id"]] = event
            return self._kept(f"{event['id']} is {describe(event)}: {self.review}")
        if outcome["kind"] == "fitness":
            self._rank(event)
        return self._kept(f"{event['id']}  {title(event):40.40}  {self._author(event, asked)}{describe(event)}")

    def _author(self, event: Event, asked: Event) -> str:
        """Who proposed a candidate, where that is not the grammar: the model, if it was one."""
        if event["purpose"] != "search":
            return ""
        author = self.llm.author({**asked, "candidate": event["candidate"]})
        return "" if author == "grammar" else f"by {printable(author)[:_AUTHOR_LETTERS]}: "

    def _rank(self, event: Event) -> None:
        best = self.best.get(event["purpose"])
        if event["purpose"] != "confirm" and (best is None or _order(event) < _order(best)):
            self.best[event["purpose"]] = event

    def _take_review(self, event: Event) -> None:
        held = self.waiting.pop(event["trial"], None)
        if held and event["decision"] == "accept":
            self._rank({**held, "outcome": {"kind": "fitness", **held["outcome"]["fitness"]}})

    def _kept(self, line: str) -> str:
        self.recent = [*self.recent, line][-_RECENT:]
        return line

    def seconds_left(self) -> float | None:
        """A guess from the pace of the trials since the start or the resumption; None before there is one."""
        if self.proposals < 2 or not self.ended:
            return None
        return (time.monotonic() - self.started) / self.ended * max(self.trials - self.proposals, 0)


def _order(event: Event) -> tuple[int, float]:
    return (-event["outcome"]["step"], -event["outcome"]["score"])


def title(event: Event) -> str:
    """What a trial is, in a few words."""
    candidate = event["candidate"]
    return printable(f"{event['purpose']} {candidate['name'] or candidate['operator']} {candidate['id']}")


def describe(event: Event) -> str:
    """A trial's outcome in one line."""
    outcome = event["outcome"]
    if outcome["kind"] == "fitness":
        stopped = f", stopped at step {outcome['step']}" if event["stopped"] else ""
        return f"{outcome['bits_per_byte']:.3f} bits per byte{stopped}"
    if outcome["kind"] == "rejected":
        return f"rejected by {printable(outcome['check'])}: {_shortened(outcome['reason'])}"
    if outcome["kind"] == "held":
        return f"held: {printable(outcome['tripwire'])}: {_shortened(outcome['reason'])}"
    lines = outcome["reason"].strip().split("\n")
    errors = [line for line in lines if _ERROR.match(line)]  # below it JAX adds some lines about itself
    return f"crashed, {printable(outcome['cause'])}: {_shortened((errors or lines)[-1])}"


def _shortened(reason: str) -> str:
    line = printable(reason)
    return line if len(line) <= _REASON_LETTERS else line[: _REASON_LETTERS - 3] + "..."


class LiveView:
    """Shows progress until the end of its `with` block. `write` takes events, from any thread.

    Args:
      name: of the search.
      trials: candidates that it will propose.
      review: the command by which a person decides on what is held.
    """

    def __init__(self, name: str, trials: int, console: Console | None = None, review: str = "nas review"):
        self._console = console or make_console()
        self._lock = threading.Lock()  # the view is drawn by a thread of its own
        self._progress = Progress(trials, review)
        self._name = name
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def catch_up(self, events: Iterable[Event]) -> None:
        """Takes in the events of an earlier run, without a word about each."""
        with self._lock:
            for event in events:
                self._progress.take(event)

    def write(self, event: Event) -> None:
        with self._lock:
            line = self._progress.take(event)
        if line and not self._console.is_terminal:
            elapsed = _clock(time.monotonic() - self._progress.started)
            self._console.print(f"{elapsed}  {line}", soft_wrap=True, markup=False, highlight=False)

    def _render(self) -> Group:
        with self._lock:
            return self._drawn()

    def _drawn(self) -> Group:
        progress = self._progress
        elapsed = _clock(time.monotonic() - progress.started)
        left = progress.seconds_left()
        head = f"{self._name}   {progress.proposals} of {progress.trials} candidates   {elapsed} gone"
        if left is not None:
            head += f", about {_clock(left)} left"
        outcomes = ", ".join(f"{count} {kind}" for kind, count in sorted(progress.outcomes.items())) or "none yet"
        bests = [
            f"best {purpose}: {describe(event)} ({title(event)})" for purpose, event in sorted(progress.best.items())
        ]
        guests = [Text(f"guests of other searches: {progress.guests}")] if progress.guests else []
        llm = [Text(f"llm: {progress.llm.words()}")] if progress.llm else []
        waiting = [Text(f"held: {', '.join(progress.waiting)}: {progress.review}")] if progress.waiting else []
        return Group(
            Text(head, style="bold"),
            Text(f"outcomes: {outcomes}"),
            *guests,
            *llm,
            *waiting,
            *(Text(line) for line in bests),
            self._operators(),
            *(Text(f"running  {trial}  {self._state_of(trial)}", style="cyan") for trial in progress.running),
            *(Text(line, style="dim") for line in progress.recent),
        )

    def _operators(self) -> Table:
        table = Table("operator", "next", "credit", "trials", box=None, padding=(0, 2, 0, 0))
        for name, credit in self._progress.credit.items():
            weight = self._progress.weights.get(name, 0.0)
            bar = "█" * round(20 * weight)
            table.add_row(
                Text(printable(name)), f"{weight:5.2f} {bar}", f"{credit['reward']:.2f}", f"{credit['pulls']:.1f}"
            )
        return table

    def _state_of(self, trial: str) -> str:
        asked, rung = self._progress.running[trial], self._progress.rungs.get(trial)
        where = f"step {rung['step']}: {rung['bits_per_byte']:.3f}" if rung else "in the gate, or compiling"
        return f"{title(asked)}  {where}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
