"""What was earned by whom, and where: discounted numbers of trials and sums of rewards, with partial pooling.

A cell is an operator, alone or in a context: a sequence of labels from coarse to fine that says what its parent was
like. Few trials fall into a fine cell, so its mean is drawn to that of the cell above it as if that had been seen
`pooling` times there (an empirical-Bayes shrinkage, Efron and Morris 1975): a context speaks for itself once it has
been tried more often than that.
"""

from collections.abc import Sequence

from nas.meta.posterior import Cell, Posterior

Context = Sequence[str]


class Evidence:
    """Cells of some operators. `update` and what reads it take a time that does not grow with the trials."""

    def __init__(self, operators: Sequence[str], discount: float, pooling: float):
        if not operators:
            raise ValueError("the search space has no mutation operators")
        self.operators = list(operators)
        self._discount = discount
        self._pooling = pooling
        self._clock = 0
        self._cells: dict[Cell, tuple[float, float, int]] = {}  # trials and rewards as of a time

    def update(self, operator: str, reward: float, context: Context = (), count: float = 1.0) -> None:
        """A trial ended; with a `count` of -1 one is taken back."""
        self._clock += count > 0
        for cell in _chain(operator, context):
            pulls, total = self._at(cell)
            self._cells[cell] = (max(pulls + count, 0.0), max(total + count * reward, 0.0), self._clock)

    def pulls(self, operator: str, context: Context = ()) -> float:
        """Discounted number of trials in this very cell."""
        return self._at((operator, *context))[0]

    def mean(self, operator: str, context: Context = ()) -> float:
        """Mean reward; 0 where there is none. In a context, drawn to the mean of the cell above."""
        pulls, total = self._at((operator,))
        mean = total / pulls if pulls else 0.0
        for cell in _chain(operator, context)[1:]:
            pulls, total = self._at(cell)
            mean = (total + self._pooling * mean) / (pulls + self._pooling) if pulls + self._pooling else mean
        return mean

    def weight(self, operator: str, context: Context = ()) -> float:
        """How many trials the mean rests on: those in the cell, and no more than `pooling` of those above it."""
        weight = self.pulls(operator)
        for cell in _chain(operator, context)[1:]:
            weight = self._at(cell)[0] + min(self._pooling, weight)
        return weight

    def start_from(self, prior: Posterior, weight: float) -> None:
        """Takes in what an earlier search has learned of the operators that are known here, discounted."""
        for cell, (pulls, total) in prior.cells.items():
            if cell[0] in self.operators:
                now = self._at(cell)
                self._cells[cell] = (now[0] + weight * pulls, now[1] + weight * total, self._clock)

    def posterior(self) -> Posterior:
        return Posterior({cell: self._at(cell) for cell in self._cells})

    def _at(self, cell: Cell) -> tuple[float, float]:
        pulls, total, then = self._cells.get(cell, (0.0, 0.0, self._clock))
        kept = self._discount ** (self._clock - then)
        return pulls * kept, total * kept


def _chain(operator: str, context: Context) -> list[Cell]:
    """The operator's own cell, then finer and finer ones."""
    return [(operator, *context[:depth]) for depth in range(len(context) + 1)]
