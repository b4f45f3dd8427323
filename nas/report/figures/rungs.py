"""Does an early rung tell what the last one will say?"""

from typing import Any

import altair as alt

from nas.archive import curve_of
from nas.report.account import Account
from nas.report.figures.figure import Figure, over_kinds, short
from nas.report.figures.points import kind_of


def figure(account: Account) -> Figure:
    title = "Early rungs against the last"
    said = [
        f"step {step}: rank correlation {found['correlation']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] over "
        f"{found['trials']} of the {found['reached']} trials that reached it"
        for step, found in account.fidelity.items()
    ]
    caption = (
        f"{'; '.join(said) or 'Too few trials for a correlation'} (95% interval; where it includes zero, nothing is "
        "known of the order). Only what survives a rung reaches the last, which narrows the range and understates the "
        "correlation."
    )
    rows = _rows(account)
    if not rows:
        return Figure("rungs", title, caption, missing="No trial has reached two rungs yet.")
    chart = (
        alt.Chart(alt.NamedData("rungs"))
        .mark_point(filled=True, size=50)
        .encode(
            x=alt.X("early:Q", scale=alt.Scale(zero=False), title="bits per byte at the early rung"),
            y=alt.Y("last:Q", scale=alt.Scale(zero=False), title="at the last"),
            color=over_kinds(alt),
            tooltip=["trial:N", "early:Q", "last:Q"],
        )
        .properties(width=280, height=260)
        .facet(column=alt.Column("step:O", title="early rung, step"))
    )
    return Figure("rungs", title, caption, chart, {"rungs": rows})


def _rows(account: Account) -> list[dict[str, Any]]:
    rows = []
    for one in account.attempts:
        if one.trial.purpose not in ("baseline", "search"):
            continue
        curve = curve_of(one.trial)
        if account.steps in curve:
            rows += [
                {
                    "trial": one.trial.id,
                    "kind": kind_of(one),
                    "step": step,
                    "early": short(bits),
                    "last": short(curve[account.steps]),
                }
                for step, bits in curve.items()
                if step < account.steps
            ]
    return rows
