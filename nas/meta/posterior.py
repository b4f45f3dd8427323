"""What a search has learned, as plain values: for the journal, for a file, for the next search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = tuple[str, ...]  # an operator, then its context from coarse to fine


@dataclass(frozen=True)
class Measured:
    """What was made of a candidate with these parts (slot -> part), after `step` optimizer steps."""

    parts: Mapping[str, str]
    step: int
    bits_per_byte: float


@dataclass(frozen=True)
class Posterior:
    """Of operators, and of candidates.

    Attributes:
      cells: cell -> (discounted number of trials, discounted sum of rewards). A reward is in [0, 1].
      measured: what the predictor knows of candidates.
    """

    cells: Mapping[Cell, tuple[float, float]]
    measured: Sequence[Measured] = ()

    def to_json(self) -> dict[str, Any]:
        cells = [{"cell": list(cell), "pulls": pulls, "sum": total} for cell, (pulls, total) in self.cells.items()]
        measured = [{**vars(one), "parts": dict(one.parts)} for one in self.measured]
        return {"cells": cells, "measured": measured}

    @classmethod
    def from_json(cls, values: Any) -> "Posterior":
        """Raises ValueError if they are damaged. Older journals have the cells alone."""
        if isinstance(values, list):
            values = {"cells": values}
        try:
            cells = {tuple(map(str, one["cell"])): (float(one["pulls"]), float(one["sum"])) for one in values["cells"]}
            measured = tuple(
                Measured(
                    {str(slot): str(part) for slot, part in one["parts"].items()},
                    int(one["step"]),
                    float(one["bits_per_byte"]),
                )
                for one in values.get("measured", ())
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it is no posterior: {error!r}") from error
        if any(not cell or not 0 <= total <= pulls < float("inf") for cell, (pulls, total) in cells.items()):
            raise ValueError("it is no posterior: rewards are between none and one a trial")
        if not all(math.isfinite(one.bits_per_byte) for one in measured):
            raise ValueError("it is no posterior: bits per byte are finite")
        return cls(cells, measured)
