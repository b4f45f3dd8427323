"""What contenders can do that baselines can't: scores of probe tasks."""

from typing import Any

import altair as alt

from nas.report.account import Account, name_of
from nas.report.figures.figure import Figure, short
from nas.types import Fitness, Trial
from nas.verify import trained

_CONTENDERS = 5


def figure(account: Account) -> Figure:
    title = "Probe profile"
    caption = (
        "Share of right answers on each probe task, of the best candidates and all baselines, at the search's seed: "
        "one training each, so without intervals; nas probe measures them over seeds."
    )
    contenders = [trial for trial in trained(account.trials, "search") if _probed(trial)][:_CONTENDERS]
    rows = [row for trial in [*contenders, *account.baselines] for row in _rows(trial)]
    if not rows:
        missing = (
            "No probe task ran in this search: nas search probe=tiny adds them, nas probe runs them by themselves."
        )
        return Figure("probes", title, caption, missing=missing)
    base = alt.Chart(alt.NamedData("probes")).encode(
        x=alt.X("task:N", title=None, axis=alt.Axis(labelAngle=-30)),
        y=alt.Y("architecture:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
        tooltip=["architecture:N", "task:N", "score:Q"],
    )
    cells = base.mark_rect().encode(color=alt.Color("score:Q", scale=alt.Scale(domain=[0, 1], scheme="blues")))
    words = base.mark_text(fontSize=11).encode(
        text=alt.Text("score:Q", format=".2f"),
        color=alt.condition("datum.score > 0.6", alt.value("white"), alt.value("black")),
    )
    chart = alt.layer(cells, words).properties(width=alt.Step(64), height=alt.Step(24))
    return Figure("probes", title, caption, chart, {"probes": rows})


def _probed(trial: Trial) -> bool:
    return isinstance(trial.outcome, Fitness) and bool(trial.outcome.probes)


def _rows(trial: Trial) -> list[dict[str, Any]]:
    assert isinstance(trial.outcome, Fitness)
    name = f"{name_of(trial.candidate)} ({trial.purpose if trial.purpose == 'baseline' else trial.id})"
    return [
        {"architecture": name, "task": task, "score": short(score, 4)} for task, score in trial.outcome.probes.items()
    ]
