"""`nas walk`: what share of what the grammar writes passes the gate, and what fails the rest.

Random walks of one to ten mutations from the baselines, each end point put through the gate as in a search. The share
that passes bounds the grammar's defects: a candidate that its own grammar wrote should never be rejected.
"""

import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas.commands.containment import contained
from nas.commands.measuring import (
    at_a_time,
    chosen_baselines,
    kept_in,
    markdown_table,
    measure,
    origin,
    origin_lines,
    warm_boxes,
    write_report,
)
from nas.errors import UserError
from nas.journal import Event
from nas.sandbox import Box, temporary_folder
from nas.settings import Settings
from nas.space import NotApplicable, SearchSpace, load_space
from nas.terminal import make_console, printable
from nas.trial import gate_arguments, memory_bytes, run_gate
from nas.types import Candidate

LONGEST = 10  # mutations
_PERCENTILES = {"median": 50, "90th": 90, "max": 100}
_REASON_LETTERS = 200
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")  # how the last line of a traceback begins; JAX adds some below it
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_COPIES_IN_A_ROW = 1000  # after so many the space is taken to have nothing new

Gate = Callable[[Candidate, Box, Path], Event]


@dataclass(frozen=True)
class Walk:
    """One random walk.

    Attributes:
      start: name of the baseline that it set out from.
      operators: of the mutations, in order.
      candidate: where it ended; None if the engine failed on the way.
      error: the engine's traceback, if it failed.
    """

    start: str
    operators: tuple[str, ...]
    candidate: Candidate | None
    error: str = ""


@dataclass
class Walker:
    """Makes random walks; counts what came in the way.

    Attributes:
      starts: baselines to set out from.
      seed: equal seeds give equal walks.
      walks: made so far.
      refused: (operator, why it was not applicable) -> draws.
      copies: walks that ended at a source seen before, and were drawn again.
    """

    space: SearchSpace
    starts: Sequence[Candidate]
    seed: int
    walks: list[Walk] = field(default_factory=list)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    copies: int = 0

    def distinct(self, count: int) -> Iterator[Walk]:
        """`count` walks to different sources, none of them a baseline's; fewer if the space has no more."""
        seen = {start.id for start in self.starts}
        rng = random.Random(self.seed)
        copies = 0  # in a row
        while len(self.walks) < count and copies < _COPIES_IN_A_ROW:
            walk = self._walk(rng)
            if walk.candidate is not None and walk.candidate.id in seen:
                copies, self.copies = copies + 1, self.copies + 1
                continue
            copies = 0
            if walk.candidate is not None:
                seen.add(walk.candidate.id)
            self.walks.append(walk)
            yield walk

    def _walk(self, rng: random.Random) -> Walk:
        start = candidate = rng.choice(self.starts)
        operators: list[str] = []
        try:
            for _ in range(rng.randint(1, LONGEST)):
                if (step := self._step(candidate, rng)) is None:
                    break
                candidate = step
                operators.append(candidate.operator)
        except Exception:  # any but NotApplicable is a defect of the space
            return Walk(start.name, tuple(operators), None, traceback.format_exc())
        return Walk(start.name, tuple(operators), candidate)

    def _step(self, candidate: Candidate, rng: random.Random) -> Candidate | None:
        """A child by an operator drawn evenly among those that apply; None if none does."""
        for operator in rng.sample(self.space.operators, len(self.space.operators)):
            mates = [self._mate(rng) for _ in range(operator.parents - 1)]
            try:
                return self.space.mutate(operator, [candidate, *mates], rng)
            except NotApplicable as error:
                self.refused[operator.name, alike(str(error))] += 1
        return None

    def _mate(self, rng: random.Random) -> Candidate:
        """A baseline, or as often the end of an earlier walk."""
        earlier = [walk.candidate for walk in self.walks if walk.candidate is not None]
        return rng.choice(rng.choice([self.starts, earlier]) or self.starts)


def walk(settings: Settings, overrides: Sequence[str]) -> int:
    """Walks, shows and writes what the gate says of where the walks end. Returns 0.

    Raises:
      UserError: if the reference baseline, whose cost caps that of the others, does not pass the gate.
    """
    space = load_space(settings.search_space.module)
    starts = _starts(settings, space)
    console, began = make_console(), time.monotonic()
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        flops = _reference_flops(settings, space, boxes[0])
        arguments = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=flops)
        limits = (settings.budget.gate_seconds, memory_bytes(settings))
        walker = Walker(space, starts, settings.seed)
        walks = walker.distinct(settings.walk.candidates)
        verdicts = measure(
            kept_in(settings, "walk", [settings.seed, [start.id for start in starts], arguments, limits]),
            ((walk.candidate.id, walk.candidate) for walk in walks if walk.candidate is not None),
            settings.walk.candidates,
            _gate(arguments, *limits),
            boxes,
            console,
        )
        minutes = (time.monotonic() - began) / 60
        report = {**origin("nas walk", overrides, boxes, minutes), **summary(walker, verdicts)}
    path = write_report(settings, "walk", report, markdown(report))
    console.print(f"{_headline(report)}\nwritten to {path}", markup=False, soft_wrap=True)
    return 0


def _starts(settings: Settings, space: SearchSpace) -> list[Candidate]:
    """The chosen baselines in which an operator can change anything."""
    starts = [candidate for candidate in chosen_baselines(settings, space) if _can_change(space, candidate)]
    if not starts:
        raise UserError("search_space.baselines names none to set out from")
    return starts


def _can_change(space: SearchSpace, candidate: Candidate) -> bool:
    for operator in space.operators:
        try:
            space.mutate(operator, [candidate] * operator.parents, random.Random(0))
        except NotApplicable:
            continue
        return True
    return False


def _reference_flops(settings: Settings, space: SearchSpace, box: Box) -> float:
    arguments = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    gate = _gate(arguments, settings.budget.gate_seconds, memory_bytes(settings))
    with temporary_folder("nas-walk-", box.root) as scratch:
        verdict = gate(space.baselines()[space.reference], box, scratch)
    if "certificate" not in verdict:
        raise UserError(f"the reference {space.reference} does not pass the gate: {verdict['outcome']['reason']}")
    return float(verdict["certificate"]["flops_per_token"])


def _gate(arguments: dict[str, Any], seconds: float, memory_bytes: int) -> Gate:
    """(candidate, box, scratch folder) -> the gate's verdict and the seconds it took."""

    def gate(candidate: Candidate, box: Box, scratch: Path) -> Event:
        began = time.monotonic()
        verdict = run_gate(candidate.source, arguments, box, scratch, seconds, memory_bytes)
        return {**verdict, "seconds": round(time.monotonic() - began, 3)}

    return gate


# What was found


def summary(walker: Walker, verdicts: Mapping[str, Event]) -> dict[str, Any]:
    """The counts of a walk as JSON values, and one row for each candidate.

    Args:
      verdicts: candidate id -> the gate's verdict and its seconds.

    Raises:
      UserError: if there is no candidate.
    """
    if not walker.walks:
        raise UserError("the operators find nothing to change in the baselines")
    rows = [_row(index, walk, verdicts) for index, walk in enumerate(walker.walks)]
    _note_copies(rows)
    kinds = Counter(row["kind"] for row in rows)
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return {
        "seed": walker.seed,
        "candidates": len(rows),
        "distinct_sources": len({row["id"] for row in rows if row["id"]}),
        "copies_drawn_again": walker.copies,
        "passed": kinds["passed"],
        "rejected": kinds["rejected"],
        "crashed": kinds["crashed"],
        "pass_rate": _rate(rows),
        "failures": _failures(rows),
        "by_mutations": {str(count): _rate(_where(rows, "mutations", count)) for count in _values(rows, "mutations")},
        "by_last_operator": {name: _rate(_where(rows, "last", name)) for name in _values(rows, "last")},
        "same_function_as_an_earlier_one": sum(row["same_function_as"] is not None for row in rows),
        "seconds": {name: float(np.percentile(seconds or [0.0], share)) for name, share in _PERCENTILES.items()},
        "not_applicable": [
            {"operator": operator, "reason": reason, "draws": draws}
            for (operator, reason), draws in walker.refused.most_common()
        ],
        "rows": rows,
    }


def _row(index: int, walk: Walk, verdicts: Mapping[str, Event]) -> dict[str, Any]:
    """One candidate; with its source if it did not pass, for whoever mends that."""
    row: dict[str, Any] = {
        "index": index,
        "id": walk.candidate.id if walk.candidate else None,
        "start": walk.start,
        "operators": list(walk.operators),
        "mutations": len(walk.operators),
        "last": walk.operators[-1] if walk.operators else "",
        **dict.fromkeys(("seconds", "fingerprint", "same_function_as", "check", "reason")),
    }
    if walk.candidate is None:
        return {**row, "kind": "crashed", "check": "mutate", "reason": walk.error}
    verdict = verdicts[walk.candidate.id]
    row["seconds"] = verdict.get("seconds")
    if "certificate" in verdict:
        return {**row, "kind": "passed", "fingerprint": verdict["certificate"]["fingerprint"]}
    outcome = verdict["outcome"]
    where = outcome["check"] if outcome["kind"] == "rejected" else outcome["cause"]
    return {
        **row,
        "kind": outcome["kind"],
        "check": where,
        "reason": outcome["reason"],
        "source": walk.candidate.source,
    }


def _note_copies(rows: Sequence[dict[str, Any]]) -> None:
    """Which earlier candidate computes the same function: no defect, but a search would train only the first."""
    first: dict[str, int] = {}
    for row in rows:
        if row["fingerprint"] is not None:
            earlier = first.setdefault(row["fingerprint"], row["index"])
            row["same_function_as"] = earlier if earlier != row["index"] else None


def _failures(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rejections and crashes, those of one reason together, the most frequent first."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        if row["kind"] != "passed":
            groups.setdefault((row["kind"], row["check"], alike(row["reason"])), []).append(row["index"])
    return [
        {"kind": kind, "check": check, "reason": reason, "count": len(found), "first": found[0]}
        for (kind, check, reason), found in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def alike(reason: str) -> str:
    """A reason without its numbers, of a traceback only the error: equal where the defect is one."""
    errors = [line for line in reason.split("\n") if _ERROR.match(line)]
    text = errors[-1] if errors and reason.startswith("Traceback") else reason
    return _NUMBER.sub("#", printable(text))[:_REASON_LETTERS]


def _rate(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Passes among `rows`, with the exact (Clopper and Pearson 1934) 95% interval of their share."""
    from scipy.stats import binomtest  # half a second to import

    passed = sum(row["kind"] == "passed" for row in rows)
    interval = binomtest(passed, len(rows)).proportion_ci(0.95, method="exact")
    share = passed / len(rows)
    return {"passed": passed, "of": len(rows), "share": share, "low": float(interval.low), "high": float(interval.high)}


def _values(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return sorted({row[key] for row in rows})


def _where(rows: Sequence[dict[str, Any]], key: str, value: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row[key] == value]


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    seconds = report["seconds"]
    lines = [
        "# Random walks through the gate",
        "",
        *origin_lines(report),
        f"Seed {report['seed']}: walks of 1 to {LONGEST} mutations from random baselines, each mutation drawn evenly "
        "among those that apply, crossover with a baseline or with an earlier end point. Each end point went through "
        "the gate of a search, the cap on FLOPs included, in a contained process.",
        "",
        f"**{_headline(report)}** {report['distinct_sources']} distinct sources; {report['copies_drawn_again']} walks "
        "ended at a source seen before and were drawn again.",
        "",
        f"{report['same_function_as_an_earlier_one']} of those that passed compute the same function as an earlier "
        "one, by the fingerprint of the novelty check: counted as passed here, trained once in a search.",
        "",
        f"A verdict took {seconds['median']:.1f} s (median), {seconds['90th']:.1f} s (90th percentile), "
        f"{seconds['max']:.1f} s at the most.",
        "",
    ]
    if report["failures"]:
        cells = [[f["kind"], f["check"], f["reason"], f["count"], f["first"]] for f in report["failures"]]
        lines += ["## What did not pass", "", *markdown_table(["", "where", "reason", "count", "first row"], cells)]
    for title, key in (("number of mutations", "by_mutations"), ("operator of the last mutation", "by_last_operator")):
        cells = [[name, rate["passed"], rate["of"], _percent(rate)] for name, rate in report[key].items()]
        lines += [f"## By {title}", "", *markdown_table([title, "passed", "of", "share, 95% interval"], cells)]
    if report["not_applicable"]:
        cells = [[draw["operator"], draw["reason"], draw["draws"]] for draw in report["not_applicable"]]
        lines += ["## Draws that did not apply", "", *markdown_table(["operator", "reason", "draws"], cells)]
    return "\n".join(lines)


def _headline(report: dict[str, Any]) -> str:
    return (
        f"{report['passed']} of {report['candidates']} candidates passed ({_percent(report['pass_rate'])}), "
        f"{report['rejected']} were rejected, {report['crashed']} crashed."
    )


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['share']:.1f}% [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
