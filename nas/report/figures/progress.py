"""Every trial, and the best so far: how the search went."""

import math
from typing import Any

import altair as alt

from nas.report.account import Account
from nas.report.figures.figure import WIDTH, Figure, Rows, over_kinds, short
from nas.report.figures.points import TIPS, points
from nas.types import Fitness

_ROOM = 0.08  # of all that was improved: labels of smaller improvements would lie on each other
_AXES = {"place": "trials", "device": "device-minutes of training", "minutes": "minutes"}


def figure(account: Account) -> Figure:
    spread = account.spread
    band = "no measured noise" if spread is None else f"{spread:.4f} bits per byte, the deviation over training seeds"
    caption = (
        "Each point is a trial at one training seed, so it has no interval of its own. Lines: baselines trained to the "
        f"end, with a band of ± {band}. Steps: the best so far among candidates; its improvements have the operator "
        "that made them. At the upper edge: what was stopped early and worse than that. Marks below: no score. "
        "Click a point for its story."
    )
    title = "Progress"
    rows = points(account)
    if not any("bits" in row for row in rows):
        return Figure("progress", title, caption, missing="No trial was trained yet.")
    data = {"points": rows, "records": _records(rows, account), "baselines": _baselines(account)}
    return Figure("progress", title, caption, _chart(rows), data)


def _chart(rows: Rows) -> Any:
    across = alt.param(
        "across", value="place", bind=alt.binding_select(options=list(_AXES), labels=list(_AXES.values()), name="by ")
    )
    values = [row["bits"] for row in rows if "bits" in row]
    ceiling = max((row["bits"] for row in rows if row.get("whole")), default=max(values))
    least = min(values) - 0.06 * (ceiling - min(values) or 1)  # room for the marks below
    span = alt.Scale(domain=[least, ceiling], zero=False, nice=False, clamp=True)
    x = alt.X("x:Q", title="by then, as chosen below")
    y = alt.Y("bits:Q", scale=span, title="bits per byte (less is better)")
    place = {"x": f"datum[{across.name}]"}
    everybody = alt.Chart(alt.NamedData("points")).transform_calculate(**place)
    trained = (
        everybody.transform_filter("isValid(datum.bits)")
        .mark_point(filled=True, size=45, opacity=0.85)
        .encode(x=x, y=y, color=over_kinds(alt), tooltip=list(TIPS))
    )
    failed = (
        everybody.transform_filter("!isValid(datum.bits)")
        .mark_tick(orient="vertical", thickness=2, size=12)
        .encode(x=x, y=alt.value("height"), color=over_kinds(alt), tooltip=list(TIPS[:-1]))
    )
    known = alt.Chart(alt.NamedData("baselines"))
    bands = known.mark_rect(opacity=0.12, clip=True, color="#000000").encode(y=alt.Y("low:Q"), y2="high:Q")
    rules = known.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(y="bits:Q", tooltip=["name:N", "bits:Q"])
    names = known.mark_text(align="right", dy=-5, fontSize=10, opacity=0.8).encode(
        y="bits:Q", x=alt.value("width"), text="name:N"
    )
    best = alt.Chart(alt.NamedData("records")).transform_calculate(**place)
    line = best.mark_line(interpolate="step-after", color="#0072B2", strokeWidth=2).encode(x=x, y=y)
    labels = (
        best.transform_filter("isValid(datum.label)")
        .mark_text(align="left", dx=6, dy=9, fontSize=10, angle=0)
        .encode(x=x, y=y, text="label:N")
    )
    layers = alt.layer(bands, rules, names, line, trained, failed, labels)
    return layers.add_params(across).properties(width=WIDTH, height=380)


def _records(rows: Rows, account: Account) -> list[dict[str, Any]]:
    """Of each improvement; and once more at the end, for the line to go on. Small ones have no label: no room."""
    by_trial = {row["trial"]: row for row in rows}
    found: list[dict[str, Any]] = []
    for _, attempt in account.records():
        row = by_trial[attempt.trial.id]
        found.append({name: row[name] for name in ("trial", "place", "device", "minutes", "bits", "operator")})
    room = _ROOM * (found[0]["bits"] - found[-1]["bits"]) if found else 0.0
    told = math.inf
    for record in found:
        if record["bits"] <= told - room:
            record["label"], told = record["operator"], record["bits"]
    if found:
        spent = {"device": short(account.device_minutes), "minutes": short(account.minutes)}
        found.append({"place": len(rows), **spent, "bits": found[-1]["bits"]})
    return found


def _baselines(account: Account) -> list[dict[str, Any]]:
    spread = account.spread or 0.0
    found = []
    for trial in account.baselines:
        bits = _bits(trial.outcome)
        found.append(
            {
                "name": trial.candidate.name,
                "bits": short(bits),
                "low": short(bits - spread),
                "high": short(bits + spread),
            }
        )
    return found


def _bits(outcome: Any) -> float:
    assert isinstance(outcome, Fitness)
    return outcome.bits_per_byte
