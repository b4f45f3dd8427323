"""Several searches beside each other, by what they had spent."""

from collections.abc import Sequence

import altair as alt

from nas.report.account import Account
from nas.report.figures.figure import WIDTH, Figure, short
from nas.report.figures.points import points
from nas.types import Fitness

_AXES = {"tried": "candidates tried", "device": "device-minutes", "minutes": "minutes", "dollars": "dollars"}


def figure(accounts: Sequence[Account]) -> Figure:
    title = "Best so far, by what was spent"
    caption = (
        "The best candidate so far of each search, at the seed that chose it: one search each, so without an interval. "
        "nas meta race compares policies over paired seeds, nas verify the winners on fresh seeds."
    )
    rows = [row for account in accounts for row in _rows(account)]
    if not rows:
        return Figure("comparison", title, caption, missing="None of them has trained a candidate to the end.")
    across = alt.param(
        "spent", value="tried", bind=alt.binding_select(options=list(_AXES), labels=list(_AXES.values()), name="by ")
    )
    chart = (
        alt.Chart(alt.NamedData("comparison"))
        .transform_calculate(x=f"datum[{across.name}]")
        .mark_line(interpolate="step-after", point=True)
        .encode(
            x=alt.X("x:Q", title="spent, as chosen below"),
            y=alt.Y("bits:Q", scale=alt.Scale(zero=False), title="best bits per byte so far"),
            color=alt.Color("search:N"),
            tooltip=["search:N", "trial:N", "bits:Q", "tried:Q", "device:Q", "minutes:Q", "dollars:Q"],
        )
        .add_params(across)
        .properties(width=WIDTH, height=340)
    )
    return Figure("comparison", title, caption, chart, {"comparison": rows})


def _rows(account: Account) -> list[dict[str, object]]:
    spent = {row["trial"]: row["device"] for row in points(account)}
    rows: list[dict[str, object]] = []
    for number, attempt in account.records():
        assert isinstance(attempt.trial.outcome, Fitness)
        rows.append(
            {
                "search": account.name,
                "trial": attempt.trial.id,
                "tried": number,
                "device": spent[attempt.trial.id],
                "minutes": short(attempt.ended),
                "dollars": short(account.dollars(attempt.ended)),
                "bits": short(attempt.trial.outcome.bits_per_byte),
            }
        )
    if rows:
        rows.append(
            {
                **rows[-1],
                "tried": len(account.proposals),
                "device": short(account.device_minutes),
                "minutes": short(account.minutes),
                "dollars": short(account.dollars(account.minutes)),
            }
        )
    return rows
