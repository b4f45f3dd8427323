"""What is best at no single thing and beaten in all by nobody: the front over loss, cost and state (Pareto 1906).

Less is better of each of the three: bits per byte on the validation windows after the full budget, forward FLOPs of the
model per token, and bytes of one mixer's decoding state. The last two are exact, and the same on every machine;
tokens/s, which is neither, is shown beside them and decides nothing here. All are at the seed that candidates were
chosen by, so a place on the front is no claim yet: fresh seeds make one.

Sorting and hypervolume are `moocore`'s (https://multi-objective.github.io/moocore/), imported when they are needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

OBJECTIVES = "bits per byte, FLOPs/token, state"
_BEYOND = 1.1  # of the baselines' range: the reference point, so that the outermost of them count too


@dataclass(frozen=True)
class Point:
    """One architecture: its trial, and the three objectives. `baseline`: whether it was there before the search."""

    trial: str
    bits_per_byte: float
    flops_per_token: float
    state_bytes: float
    baseline: bool = False


@dataclass(frozen=True)
class Front:
    """Who is on it, and how much of the space it covers.

    Attributes:
      trials: on the front, candidates and baselines, in the order given.
      hypervolume: of all points, where the baselines' range in each objective is 1 (FLOPs and state in octaves) and the
        reference point is a tenth beyond the worst baseline in each; where they do not differ, a bit or an octave takes
        the range's place. So it compares only between searches with the same baselines.
      of_baselines: of the baselines alone.
    """

    trials: Sequence[str] = ()
    hypervolume: float = 0.0
    of_baselines: float = 0.0


def front(points: Sequence[Point]) -> Front | None:
    """The non-dominated points; equal ones are on it together. None without a baseline."""
    baselines = [_objectives(point) for point in points if point.baseline]
    if not baselines:
        return None
    import moocore

    values = [_objectives(point) for point in points]
    best = [min(column) for column in zip(*baselines, strict=True)]
    ranges = [max(column) - low or 1.0 for column, low in zip(zip(*baselines, strict=True), best, strict=True)]

    def hypervolume(rows: Sequence[Sequence[float]]) -> float:
        scaled = [[(x - low) / span for x, low, span in zip(row, best, ranges, strict=True)] for row in rows]
        return float(moocore.hypervolume(scaled, ref=[_BEYOND] * 3))

    on_it = moocore.is_nondominated(values, keep_weakly=True)
    trials = [point.trial for point, on in zip(points, on_it, strict=True) if on]
    return Front(trials, hypervolume(values), hypervolume(baselines))


def _objectives(point: Point) -> tuple[float, float, float]:
    """Bits per byte, octaves of FLOPs, octaves of state; of less than one there is none."""
    return (point.bits_per_byte, math.log2(max(point.flops_per_token, 1)), math.log2(max(point.state_bytes, 1)))
