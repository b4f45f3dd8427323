"""What a policy has learned, as plain values: for the journal, for a file, for the next search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Cell = tuple[str, ...]  # an operator, then its context from coarse to fine


@dataclass(frozen=True)
class Posterior:
    """Cell -> (discounted number of trials, discounted sum of rewards). A reward is in [0, 1]."""

    cells: Mapping[Cell, tuple[float, float]]

    def to_json(self) -> list[dict[str, Any]]:
        return [{"cell": list(cell), "pulls": pulls, "sum": total} for cell, (pulls, total) in self.cells.items()]

    @classmethod
    def from_json(cls, values: Any) -> "Posterior":
        """Raises ValueError if they are damaged."""
        try:
            cells = {tuple(map(str, one["cell"])): (float(one["pulls"]), float(one["sum"])) for one in values}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it is no posterior: {error!r}") from error
        if any(not cell or not 0 <= total <= pulls < float("inf") for cell, (pulls, total) in cells.items()):
            raise ValueError("it is no posterior: rewards are between none and one a trial")
        return cls(cells)
