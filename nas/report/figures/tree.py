"""Who was made of whom: the evolution tree, by first parents."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from nas.report.account import Account, Attempt
from nas.report.figures.figure import SHAPES, WIDTH, Figure, short
from nas.report.figures.points import TIPS
from nas.terminal import printable
from nas.types import Fitness

GUEST = "guest"
_ROW, _LEAST, _MOST = 13, 240, 1_500  # pixels a leaf, and of the whole


def figure(account: Account) -> Figure:
    title = "Evolution tree"
    caption = (
        "From baselines and guests (of other searches) on the left to their descendants, by first parents: shape is "
        "the operator that made it, colour its bits per byte at one seed (no interval), and the heavy line leads to "
        "the best. Only what was trained is shown, faint if it was stopped early; a mark's failed children are counted "
        "when you point at it. Click a mark for its story, drag to move, shift and wheel to zoom."
    )
    nodes, edges = layout(account)
    if not edges:
        return Figure("tree", title, caption, missing="Nothing that was proposed was trained yet.")
    return Figure("tree", title, caption, _chart(account, nodes), {"nodes": nodes, "edges": edges})


def layout(account: Account) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(nodes, edges) with places: across by generation, down by leaf, a parent in the middle of its children."""
    shown = _shown(account)
    parent_of = {name: _parent(one, shown) for name, one in shown.items()}
    children: dict[str, list[str]] = {name: [] for name in shown}
    for name, parent in parent_of.items():
        if parent:
            children[parent].append(name)
    rows, depths = _places([name for name, parent in parent_of.items() if parent is None], children)
    failed = _failed_children(account)
    best = {change.child.id for change in account.path} | {change.parent.id for change in account.path}
    nodes = [
        {
            "trial": one.trial.id,
            "name": one.name,
            "operator": GUEST if one.trial.purpose == GUEST else printable(one.trial.candidate.operator),
            "what": one.kind,
            "bits": short(_bits(one)),
            "whole": one.whole,
            "gain": short(one.gain),
            "failed": failed.get(name, 0),
            "depth": depths[name],
            "row": rows[name],
            "best": name in best,
        }
        for name, one in shown.items()
    ]
    edges = [
        {
            "depth": depths[parent],
            "row": rows[parent],
            "to_depth": depths[name],
            "to_row": rows[name],
            "best": name in best and parent in best,
        }
        for name, parent in parent_of.items()
        if parent
    ]
    return nodes, edges


def _shown(account: Account) -> dict[str, Attempt]:
    """Candidate id -> its attempt, of all that were trained at the search's own seed, and of guests with children."""
    shown: dict[str, Attempt] = {}
    for one in account.attempts:
        if one.trial.purpose in ("baseline", "search") and isinstance(one.trial.outcome, Fitness):
            shown.setdefault(one.trial.candidate.id, one)
    parents = {parent for one in shown.values() for parent in one.trial.candidate.parents[:1]}
    guests = {one.trial.candidate.id: one for one in account.guests if one.trial.candidate.id in parents}
    return {**guests, **shown}


def _parent(one: Attempt, shown: Mapping[str, Attempt]) -> str | None:
    """The first parent that is shown and was there before: so there are no circles."""
    if one.trial.purpose in ("baseline", GUEST):
        return None
    return next((p for p in one.trial.candidate.parents if p in shown and shown[p].place < one.place), None)


def _places(roots: Sequence[str], children: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], dict[str, int]]:
    """(row, depth) of each. Without recursion: a lineage can be long."""
    rows: dict[str, float] = {}
    depths = dict.fromkeys(roots, 0)
    leaves = 0
    left = [(root, False) for root in reversed(roots)]
    while left:
        name, done = left.pop()
        if done:
            rows[name] = (rows[children[name][0]] + rows[children[name][-1]]) / 2
        elif children[name]:
            depths |= dict.fromkeys(children[name], depths[name] + 1)
            left += [(name, True), *((child, False) for child in reversed(children[name]))]
        else:
            rows[name] = float(leaves)
            leaves += 1
    return rows, depths


def _failed_children(account: Account) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in account.proposals:
        if not isinstance(one.trial.outcome, Fitness):
            for parent in one.trial.candidate.parents[:1]:
                found[parent] = found.get(parent, 0) + 1
    return found


def _chart(account: Account, nodes: Sequence[Mapping[str, Any]]) -> Any:
    leaves = 1 + max(node["row"] for node in nodes)
    height = min(_MOST, max(_LEAST, _ROW * leaves))
    first = ["baseline", *([GUEST] if any(node["operator"] == GUEST for node in nodes) else [])]
    operators = [*first, *(name for name in account.operators if name not in first)]
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(operators))]
    bits = sorted(node["bits"] for node in nodes if node["whole"]) or sorted(node["bits"] for node in nodes)
    worst = bits[int(0.9 * (len(bits) - 1))]  # the few that are far off would take all the colours
    colours = alt.Scale(scheme="viridis", reverse=True, domain=[bits[0], max(worst, bits[0] + 1e-6)], clamp=True)
    x = alt.X(
        "depth:Q", title="generation", scale=alt.Scale(padding=14, nice=False), axis=alt.Axis(tickMinStep=1, format="d")
    )
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(reverse=True, zero=False, padding=12, nice=False))
    lines = (
        alt.Chart(alt.NamedData("edges"))
        .mark_rule()
        .encode(
            x=x,
            y=y,
            x2="to_depth:Q",
            y2="to_row:Q",
            size=alt.condition("datum.best", alt.value(3), alt.value(0.8)),
            color=alt.condition("datum.best", alt.value("#D55E00"), alt.value("#999999")),
        )
    )
    move = alt.selection_interval(
        name="move",
        bind="scales",
        zoom="wheel![event.shiftKey]",
        translate="[pointerdown, window:pointerup] > window:pointermove!",
    )
    marks = (
        alt.Chart(alt.NamedData("nodes"))
        .mark_point(filled=True, cursor="pointer")
        .encode(
            x=x,
            y=y,
            shape=alt.Shape("operator:N", scale=alt.Scale(domain=operators, range=shapes)),
            color=alt.Color("bits:Q", scale=colours, title="bits per byte"),
            size=alt.condition("datum.best", alt.value(140), alt.value(70)),
            opacity=alt.condition("datum.whole", alt.value(1), alt.value(0.35)),
            tooltip=[*TIPS, "gain:Q", alt.Tooltip("failed:Q", title="failed children")],
        )
        .add_params(move)
    )
    return alt.layer(lines, marks).properties(width=WIDTH, height=height)


def _bits(one: Attempt) -> float:
    assert isinstance(one.trial.outcome, Fitness)
    return one.trial.outcome.bits_per_byte
