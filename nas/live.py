"""What a person sees while a search runs: a live view in a terminal, a line for each result elsewhere.

Like everything else it is fed by the journal's events.
"""

import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nas.journal import Event

_RECENT = 6


class Progress:
    """What has happened so far, as the events told it."""

    def __init__(self, trials: int, workers: int | None = None):
        self.trials = trials
        self.started = time.monotonic()
        self.outcomes: Counter[str] = Counter()
        self.proposals = 0
        self.best: dict[str, Event] = {}  # purpose -> the trial event
        self.running: dict[str, Event] = {}
        self.rungs: dict[str, Event] = {}
        self.weights: dict[str, float] = {}
        self.credit: dict[str, dict[str, float]] = {}
        self.recent: list[str] = []
        self._seconds: list[float] = []

    def take(self, event: Event) -> str | None:
        """Takes in an event; returns a line for it if it is worth one."""
        kind = event["event"]
        if kind == "ask":
            self.running[event["trial"]] = event
            self.weights = event["weights"] or self.weights
        elif kind == "rung":
            self.rungs[event["trial"]] = event
        elif kind == "trial":
            return self._take_trial(event)
        return None

    def _take_trial(self, event: Event) -> str:
        self.running.pop(event["id"], None)
        self.rungs.pop(event["id"], None)
        outcome, purpose = event["outcome"], event["purpose"]
        self.credit = event["credit"]
        if purpose == "search":
            self.outcomes["stopped early" if event["stopped"] else outcome["kind"]] += 1
            duplicate = outcome["kind"] == "rejected" and not event["cost"]["total_seconds"]
            self.proposals += not duplicate
            if not duplicate:
                self._seconds.append(event["cost"]["total_seconds"])
        if outcome["kind"] == "fitness" and purpose != "confirm":
            best = self.best.get(purpose)
            if best is None or _order(event) < _order(best):
                self.best[purpose] = event
        line = f"{event['id']}  {title(event):34.34}  {describe(event)}"
        self.recent = [*self.recent, line][-_RECENT:]
        return line

    def seconds_left(self) -> float | None:
        """A guess from the pace of the proposals so far; None before there is one."""
        if self.proposals < 2:
            return None
        pace = (time.monotonic() - self.started) / max(self.proposals + sum(1 for _ in self.best), 1)
        return pace * max(self.trials - self.proposals, 0)


def _order(event: Event) -> tuple[int, float]:
    return (-event["outcome"]["step"], event["outcome"]["bits_per_byte"])


def title(event: Event) -> str:
    """What a trial is, in a few words."""
    candidate = event["candidate"]
    return f"{event['purpose']} {candidate['name'] or candidate['operator']} {candidate['id']}"


def describe(event: Event) -> str:
    """A trial's outcome in one line."""
    outcome = event["outcome"]
    if outcome["kind"] == "fitness":
        stopped = f", stopped at step {outcome['step']}" if event["stopped"] else ""
        return f"{outcome['bits_per_byte']:.3f} bits per byte{stopped}"
    reason = " ".join(str(outcome["reason"]).split())
    last = reason if len(reason) < 110 else reason[:107] + "..."
    if outcome["kind"] == "rejected":
        return f"rejected by {outcome['check']}: {last}"
    return f"crashed, {outcome['cause']}: {str(outcome['reason']).strip().splitlines()[-1][:110]}"


class LiveView:
    """Shows progress until the end of its `with` block. `write` takes events, from any thread."""

    def __init__(self, name: str, trials: int, console: Console | None = None):
        self._console = console or Console(highlight=False)
        self._progress = Progress(trials)
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

    def write(self, event: Event) -> None:
        line = self._progress.take(event)
        if line and not self._console.is_terminal:
            elapsed = _clock(time.monotonic() - self._progress.started)
            self._console.print(escape(f"{elapsed}  {line}"), soft_wrap=True)

    def _render(self) -> Group:
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
        return Group(
            Text(head, style="bold"),
            Text(f"outcomes: {outcomes}"),
            *(Text(line) for line in bests),
            self._operators(),
            *(Text(f"running  {trial}  {self._state_of(trial)}", style="cyan") for trial in list(progress.running)),
            *(Text(line, style="dim") for line in progress.recent),
        )

    def _operators(self) -> Table:
        table = Table("operator", "next", "credit", "trials", box=None, padding=(0, 2, 0, 0))
        for name, credit in self._progress.credit.items():
            weight = self._progress.weights.get(name, 0.0)
            bar = "█" * round(20 * weight)
            table.add_row(name, f"{weight:5.2f} {bar}", f"{credit['reward']:.2f}", f"{credit['pulls']:.1f}")
        return table

    def _state_of(self, trial: str) -> str:
        asked, rung = self._progress.running[trial], self._progress.rungs.get(trial)
        where = f"step {rung['step']}: {rung['bits_per_byte']:.3f}" if rung else "in the gate, or compiling"
        return f"{title(asked)}  {where}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
