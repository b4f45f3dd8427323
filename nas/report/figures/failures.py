"""What came to no score, and who made it."""

from collections import Counter

import altair as alt

from nas.report.account import Account
from nas.report.answers import failures_of, share
from nas.report.figures.figure import WIDTH, Figure, over_operators
from nas.terminal import printable


def figure(account: Account) -> Figure:
    title = "What failed"
    total = len(account.proposals)
    failures = failures_of(account)
    whole = share(sum(len(those) for _, those in failures), total)
    caption = (
        f"{whole} new candidates came to no score, by the gate's check, the cause of the crash or the tripwire "
        "(Wilson's 95% interval). Colour: the operator that made it. The most frequent reasons are in the table below."
    )
    if not failures:
        return Figure("failures", title, caption, missing="Nothing failed.")
    rows = [
        {"failure": kind, "operator": operator, "candidates": count}
        for kind, those in failures
        for operator, count in Counter(printable(trial.candidate.operator) for trial in those).items()
    ]
    chart = (
        alt.Chart(alt.NamedData("failures"))
        .mark_bar()
        .encode(
            x=alt.X("candidates:Q", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("failure:N", sort="-x", title=None, axis=alt.Axis(labelLimit=260)),
            color=over_operators(alt, account.operators),
            tooltip=["failure:N", "operator:N", "candidates:Q"],
        )
        .properties(width=WIDTH, height=alt.Step(26))
    )
    return Figure("failures", title, caption, chart, {"failures": rows})
