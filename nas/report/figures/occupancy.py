"""What the devices did, and when."""

import altair as alt

from nas.report.account import Account, Attempt
from nas.report.figures.figure import WIDTH, Figure, short

_PHASES = {"gate": "#E69F00", "training": "#0072B2", "rest": "#BBBBBB"}


def figure(account: Account) -> Figure:
    title = "Occupancy"
    lanes = _lanes(account)
    busy = sum(one.ended - one.began for one, _ in lanes)
    training = account.device_minutes
    count = 1 + max((lane for _, lane in lanes), default=0)
    available = count * account.minutes
    said = (
        f"{count} at a time at most, busy {busy / available:.0%} of their time and in training steps "
        f"{training / available:.0%}. "
        if available
        else ""
    )
    caption = (
        f"{said}Each bar is a trial from its start to its end: the gate, training, and the rest (compiling, "
        "checkpoints, rescoring, waiting for a decision). A trial's parts are as long as measured, in that order; "
        "where between rungs they really lie is not recorded. Counted, so without intervals."
    )
    if not lanes:
        return Figure("occupancy", title, caption, missing="No trial has ended yet.")
    rows = [row for one, lane in lanes for row in _parts(one, lane)]
    chart = (
        alt.Chart(alt.NamedData("occupancy"))
        .mark_bar(height=14)
        .encode(
            x=alt.X("from:Q", title="minutes"),
            x2="to:Q",
            y=alt.Y("lane:O", title="at a time"),
            color=alt.Color("phase:N", title=None, scale=alt.Scale(domain=list(_PHASES), range=list(_PHASES.values()))),
            tooltip=["trial:N", "phase:N", "from:Q", "to:Q"],
        )
        .properties(width=WIDTH, height=alt.Step(22))
    )
    return Figure("occupancy", title, caption, chart, {"occupancy": rows})


def _lanes(account: Account) -> list[tuple[Attempt, int]]:
    """Each trial with the first lane that was free when it began."""
    free: list[float] = []
    found = []
    for one in sorted(account.attempts, key=lambda one: (one.began, one.place)):
        if one.ended <= one.began:
            continue  # a copy, which ran nowhere
        lane = next((place for place, until in enumerate(free) if until <= one.began + 1e-3), len(free))
        free[lane : lane + 1] = [one.ended]
        found.append((one, lane))
    return found


def _parts(one: Attempt, lane: int) -> list[dict[str, object]]:
    cost, whole = one.trial.cost, one.ended - one.began
    gate = min(cost.gate_seconds / 60, whole)
    training = min(cost.train_seconds / 60, whole - gate)
    parts, start = [], one.began
    for phase, length in (("gate", gate), ("training", training), ("rest", whole - gate - training)):
        if length > 0:
            row = {"trial": one.trial.id, "lane": lane, "phase": phase}
            parts.append({**row, "from": short(start, 6), "to": short(start + length, 6)})
        start += length
    return parts
