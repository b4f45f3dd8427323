"""What a figure is, and what all have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Rows = Sequence[Mapping[str, Any]]
WIDTH = 820  # pixels, without a legend
KINDS = {  # what became of a trial, and its colour (Okabe and Ito's, which colour-blind people tell apart)
    "baseline": "#000000",
    "trained": "#0072B2",
    "stopped early": "#56B4E9",
    "rejected": "#D55E00",
    "crashed": "#CC79A7",
    "held": "#E69F00",
    "fresh seed": "#009E73",
}
SHAPES = (  # of operators, in the order in which they are first seen; with more of them they come again
    *("circle", "square", "cross", "diamond", "triangle-up", "triangle-down", "triangle-right", "triangle-left"),
    "M-1,0L-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87Z",
    "M0,-1L.25,-.25L1,0L.25,.25L0,1L-.25,.25L-1,0L-.25,-.25Z",
    "M-1,-.5L1,-.5L1,.5L-1,.5Z",
    "M-.5,-1L.5,-1L.5,1L-.5,1Z",
    "M-1,-1L0,-.4L1,-1L.4,0L1,1L0,.4L-1,1L-.4,0Z",
    "M-1,-1L1,-1L.5,1L-.5,1Z",
    "M-.5,-1L.5,-1L1,1L-1,1Z",
    "M-1,-1L1,-1L-1,1L1,1Z",
)


@dataclass(frozen=True)
class Figure:
    """One chart with what it rests on.

    Attributes:
      name: identifies it in the page.
      caption: what is seen, and what is known of its uncertainty.
      chart: Altair's, over named data; None where there is nothing to show.
      data: name -> rows of what the chart shows. Figures that share a name share the rows.
      missing: what would have to be done for it to show something.
    """

    name: str
    title: str
    caption: str
    chart: Any = None
    data: Mapping[str, Rows] = field(default_factory=dict)
    missing: str = ""


def short(number: float | None, digits: int = 5) -> float | None:
    """With so many digits as a chart can show: the page stays small."""
    return None if number is None else float(f"{number:.{digits}g}")


def over_kinds(alt: Any, **options: Any) -> Any:
    """The colour channel of what became of a trial."""
    scale = alt.Scale(domain=list(KINDS), range=list(KINDS.values()))
    return alt.Color("kind:N", scale=scale, title=None, **options)


def over_operators(alt: Any, operators: Sequence[str], field: str = "operator", **options: Any) -> Any:
    """The colour channel of operators, the same in every figure."""
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(operators), scheme="tableau20"), **options)
