"""The report's charts, one a file; a new one is a function here that makes a `Figure` of an account."""

from collections.abc import Callable, Sequence

from nas.report.account import Account
from nas.report.figures import costs, failures, front, occupancy, operators, probes, progress, rungs, tree
from nas.report.figures.figure import Figure

FIGURES: Sequence[Callable[[Account], Figure]] = (
    progress.figure,
    tree.figure,
    operators.river,
    operators.earnings,
    front.figure,
    probes.figure,
    failures.figure,
    rungs.figure,
    costs.figure,
    occupancy.figure,
)
