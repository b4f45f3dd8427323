"""Which operators were drawn, and what came of them: the weights as a river, success and gain with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from nas.report.account import Account, Attempt
from nas.report.figures.figure import WIDTH, Figure, over_operators, short
from nas.statistics import mean_interval, share_interval
from nas.terminal import printable
from nas.types import ELSEWHERE, Crashed

_POINTS = 150  # of the river: of more, each is the mean of its neighbours


def river(account: Account) -> Figure:
    title = "Operator weights"
    caption = (
        "The probability with which each operator was drawn, over the search, as wide as it was: the policy's own "
        "numbers, exact at each proposal and joined by curves. Click an operator in the legend to see it alone."
    )
    drawn = [attempt.weights for attempt in sorted(account.attempts, key=lambda one: one.trial.id) if attempt.weights]
    if len(drawn) < 2:
        return Figure("river", title, caption, missing="Fewer than two proposals were drawn by a policy.")
    chosen = alt.selection_point(name="chosen", fields=["operator"], bind="legend")
    chart = (
        alt.Chart(alt.NamedData("weights"))
        .mark_area(interpolate="monotone")
        .encode(
            x=alt.X("proposal:Q", title="proposals"),
            y=alt.Y("weight:Q", stack="center", axis=None),
            color=over_operators(alt, account.operators),
            opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.12)),
            tooltip=["operator:N", "proposal:Q", alt.Tooltip("weight:Q", format=".1%")],
        )
        .add_params(chosen)
        .properties(width=WIDTH, height=260)
    )
    return Figure("river", title, caption, chart, {"weights": _weights(drawn)})


def _weights(drawn: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Every operator at every point, also where it has no weight: a river has no holes."""
    names = list(dict.fromkeys(name for weights in drawn for name in weights))
    size = -(-len(drawn) // _POINTS)
    rows = []
    for first in range(0, len(drawn), size):
        part = drawn[first : first + size]
        for name in names:
            mean = sum(weights.get(name, 0.0) for weights in part) / len(part)
            rows.append({"operator": name, "proposal": first + len(part) // 2, "weight": short(mean, 4)})
    return rows


def earnings(account: Account) -> Figure:
    title = "What operators and authors have earned"
    caption = (
        "Left: the share of proposals that gained more than the noise over their best parent (Wilson's 95% interval). "
        "Right: the mean gain in bits per byte, zero for what failed or stayed within the noise (Student's 95% "
        "interval; none for a single proposal). What a machine's failure ended is not counted."
    )
    rows = [
        *_rows("operator", {name: _of(account, name) for name in account.operators}),
        *_rows("author", _by_author(account)),
    ]
    if not rows:
        return Figure("earnings", title, caption, missing="Nothing that was proposed has ended yet.")
    base = alt.Chart(alt.NamedData("earnings")).encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=220)),
        color=alt.Color("by:N", title=None, scale=alt.Scale(range=["#0072B2", "#D55E00"])),
    )
    tips = ["label:N", "proposals:Q", "share:N", "gain:N"]
    charts = []
    for name, axis in (("rate", "share that gained"), ("mean", "mean gain, bits per byte")):
        points = base.mark_point(filled=True, size=70).encode(x=alt.X(f"{name}:Q", title=axis), tooltip=tips)
        bars = base.mark_rule().encode(x=f"{name}_low:Q", x2=f"{name}_high:Q")
        charts.append(alt.layer(bars, points).properties(width=WIDTH // 2 - 140, height=alt.Step(20)))
    return Figure("earnings", title, caption, alt.hconcat(*charts), {"earnings": rows})


def evidence(account: Account) -> list[Attempt]:
    """The proposals that say something of who made them."""
    return [
        one
        for one in account.proposals
        if not (isinstance(one.trial.outcome, Crashed) and one.trial.outcome.cause in ELSEWHERE)
    ]


def _of(account: Account, operator: str) -> list[Attempt]:
    return [one for one in evidence(account) if printable(one.trial.candidate.operator) == operator]


def _by_author(account: Account) -> dict[str, list[Attempt]]:
    authors: dict[str, list[Attempt]] = {}
    for one in evidence(account):
        authors.setdefault(one.author, []).append(one)
    return authors


def _rows(by: str, groups: Mapping[str, Sequence[Attempt]]) -> list[dict[str, Any]]:
    rows = []
    for name, those in groups.items():
        if not those:
            continue
        gains = [one.gain or 0.0 for one in those]
        wins = sum(gain > 0 for gain in gains)
        low, high = share_interval(wins, len(those))
        mean = mean_interval(gains)
        row = {
            "by": by,
            "label": f"{name} ({len(those)})",
            "proposals": len(those),
            "rate": short(wins / len(those), 4),
            "rate_low": short(low, 4),
            "rate_high": short(high, 4),
            "mean": short(mean.mean, 4),
            "share": f"{wins} of {len(those)}, {wins / len(those):.0%} [{low:.0%}, {high:.0%}]",
            "gain": str(mean),
        }
        if mean.count > 1:
            row |= {"mean_low": short(mean.low, 4), "mean_high": short(mean.high, 4)}
        rows.append(row)
    return rows
