"""Quality against speed and memory: who is beaten in all by nobody."""

import altair as alt
import moocore

from nas.report.account import Account
from nas.report.figures.figure import WIDTH, Figure, over_kinds
from nas.report.figures.points import TIPS, points


def figure(account: Account) -> Figure:
    title = "Quality, speed and memory"
    caption = (
        "Trained to the end: bits per byte against tokens/s of training on the machine of the search, size by peak "
        "memory. Ringed: nobody is better in all three. All at one seed, so none has an interval; "
        + (
            "seeds differ by " + f"{account.spread:.4f} bits per byte"
            if account.spread
            else "the noise was not measured"
        )
        + ", and tokens/s depend on what else the machine did."
    )
    rows = [dict(row) for row in points(account) if row.get("whole") and row["kind"] in ("baseline", "trained")]
    if not rows:
        return Figure("front", title, caption, missing="Nothing was trained to the end yet.")
    on_it = moocore.is_nondominated([[row["bits"], -row["speed"], row["memory"]] for row in rows], keep_weakly=True)
    for row, on in zip(rows, on_it, strict=True):
        row["front"] = bool(on)
    base = alt.Chart(alt.NamedData("whole")).encode(
        x=alt.X("speed:Q", scale=alt.Scale(type="log", nice=False, padding=20), title="tokens/s (more is better)"),
        y=alt.Y("bits:Q", scale=alt.Scale(zero=False), title="bits per byte (less is better)"),
        size=alt.Size("memory:Q", title="peak memory, MiB", scale=alt.Scale(range=[40, 300], zero=False)),
        tooltip=[*TIPS, "speed:Q", "memory:Q", "flops:Q", "state:Q"],
    )
    marks = base.mark_point(filled=True, opacity=0.8).encode(color=over_kinds(alt))
    rings = base.transform_filter("datum.front").mark_point(strokeWidth=2.5, color="#D55E00", filled=False)
    chart = alt.layer(marks, rings).properties(width=WIDTH, height=340)
    return Figure("front", title, caption, chart, {"whole": rows})
