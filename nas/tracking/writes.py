"""What is to be written to MLflow, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]

# Rejected is a result, the gate's, and as complete as a score; red is kept for runs whose training broke. What is held
# is complete too: a person's decision amends it.
STATUS = {"fitness": "FINISHED", "rejected": "FINISHED", "crashed": "FAILED", "held": "FINISHED"}
COMPLETE = frozenset(STATUS.values())


@dataclass(frozen=True)
class Search:
    """Which search: its name and its start, so that a later search of the same name has a run of its own."""

    name: str
    started: str


@dataclass(frozen=True)
class Write:
    """An addition to one run, which is created if need be. Applying it twice is applying it once.

    Attributes:
      trial: whose run, or None for the search's own.
      metrics: (name, value, time in ms, step).
      milestone: the search's finished trials, if the metrics are those after that many.
      status: of the run from now on; None leaves it.
      amends: whether it is for a run that is complete; others are not written there.
    """

    search: Search
    time_ms: int
    trial: str | None = None
    run_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[tuple[str, float, int, int], ...] = ()
    milestone: int | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    status: str | None = None
    amends: bool = False


@dataclass(frozen=True)
class Usage:
    """What one call or a whole work took."""

    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.dollars + other.dollars)


@dataclass(frozen=True)
class Span:
    """One call of a model, or the whole work that the calls are for.

    Attributes:
      number: within its trace; 0 is the whole work, whose parts the others are.
      start_ns: since 1970, as `end_ns`.
      inputs: JSON, as `outputs` and the values of `attributes`.
      model: that was called; empty for the whole work.
      error: why it failed; None if it did not.
    """

    number: int
    name: str
    start_ns: int
    end_ns: int
    inputs: Any
    outputs: Any
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class TraceWrite:
    """An addition to the trace of one work, which is created if need be. Applying it twice is applying it once.

    Attributes:
      work: e.g. "p0003" for a proposal or "a-t0012" for an analysis; one trace each.
      spans: what is new or has changed.
      usage: of the work so far.
      state: "IN_PROGRESS", or how it ended: "OK" or "ERROR".
      trial: whose run an ended work is linked to; None for the search's own.
      amends: whether it is for a trace that has ended; others are not written there.
    """

    search: Search
    work: str
    name: str
    start_ns: int
    end_ns: int
    request: str
    response: str
    usage: Usage
    tags: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()
    state: str = "IN_PROGRESS"
    trial: str | None = None
    amends: bool = False
