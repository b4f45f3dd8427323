"""What each improvement cost: time of the devices between one best and the next."""

import altair as alt

from nas.report.account import Account
from nas.report.figures.figure import WIDTH, Figure, short
from nas.report.figures.points import points


def figure(account: Account) -> Figure:
    title = "Cost of each improvement"
    dollars = f" Language models cost ${account.tally.dollars:.4f} in all." if account.tally else ""
    caption = (
        "Device-minutes of training between one best candidate and the next: counted, so without an interval; whether "
        f"an improvement is one is another question, since each is of one seed.{dollars}"
    )
    if not account.records():
        return Figure("costs", title, caption, missing="No candidate was trained to the end yet.")
    spent = {row["trial"]: row["device"] for row in points(account)}
    rows, before = [], 0.0
    for tried, attempt in account.records():
        now = float(spent[attempt.trial.id])
        rows.append(
            {
                "trial": attempt.trial.id,
                "label": f"{attempt.trial.id} {attempt.name}",
                "cost": short(now - before, 4),
                "tried": tried,
            }
        )
        before = now
    rows.append({"trial": "", "label": "since then", "cost": short(account.device_minutes - before, 4)})
    chart = (
        alt.Chart(alt.NamedData("costs"))
        .mark_bar(color="#0072B2")
        .encode(
            x=alt.X("cost:Q", title="device-minutes"),
            y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            tooltip=["label:N", "cost:Q", alt.Tooltip("tried:Q", title="candidates tried by then")],
        )
        .properties(width=WIDTH, height=alt.Step(24))
    )
    return Figure("costs", title, caption, chart, {"costs": rows})
