"""A name for the function that a mixer computes, whatever its fields are called and in whatever order it is written.

Parameters are told apart by what they do. First all parameters of one shape get the same values; then each in turn is
given others, and the change it makes is its signature. Sorted by signature, each gets values of its own, and the
outputs, rounded coarsely, are hashed together with each parameter's shape and initial distribution: the same function
started elsewhere trains differently, so it is another candidate.
"""

import hashlib
import json
import math
from typing import Any

import numpy as np

from nas.gate.probe import Probe, fan_in_scale, rms
from nas.gate.settings import Fault, GateSettings

GRID = 0.02  # of projections of size 1: far above float32 rounding, far below what another function changes
PROJECTIONS = 12


def check(probe: Probe, settings: GateSettings) -> tuple[str, str]:
    """(what was seen, the fingerprint).

    Raises:
      Fault: if a candidate already tried has the same fingerprint.
    """
    name = fingerprint(probe)
    if name in settings.known:
        raise Fault("novelty", f"computes the same function as candidate {settings.known[name]}")
    return f"fingerprint {name} is new among {len(settings.known)}", name


def fingerprint(probe: Probe) -> str:
    """Sixteen hexadecimal digits; of the source where the function has no finite values to go by."""
    shape = (probe.rows, probe.train, probe.settings.width)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, *shape[1:])).repeat(probe.rows, axis=0).astype(np.float32)
    directions = generator.standard_normal((PROJECTIONS, probe.train * probe.settings.width))

    def project(params: list[np.ndarray]) -> np.ndarray | None:
        y = probe.forward(params, x)[0].astype(np.float64).ravel()
        if not np.isfinite(y).all():
            return None
        scale = rms(y)
        return np.append(directions @ y / (scale * math.sqrt(y.size)), math.log(scale))

    shapes = [leaf.shape for leaf in probe.initial]
    tied = [_values(shape, 0) for shape in shapes]
    tied_outputs = project(tied)
    signatures: list[Any] = []
    for index, shape_ in enumerate(shapes):
        moved = project([*tied[:index], _values(shape_, 1), *tied[index + 1 :]])
        if tied_outputs is None or moved is None:
            return _hash(["source", probe.source])
        signatures.append((shape_, _initial(probe.initial[index]), tuple(np.round(moved - tied_outputs, 4))))
    order = sorted(range(len(shapes)), key=lambda index: signatures[index])
    distinct = list(tied)
    for rank, index in enumerate(order):
        distinct[index] = _values(shapes[index], 2 + rank)
    outputs = project(distinct)
    if outputs is None:
        return _hash(["source", probe.source])
    return _hash([np.round(outputs / GRID).astype(int).tolist(), [signatures[index][:2] for index in order]])


def _values(shape: tuple[int, ...], which: int) -> np.ndarray:
    generator = np.random.default_rng([which, *shape])
    scale = fan_in_scale(shape) if len(shape) >= 2 else 0.5
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def _initial(leaf: np.ndarray) -> tuple[Any, ...]:
    """A leaf's initial distribution, coarsely: a constant, or size and centre on a logarithmic grid."""
    low, high, spread = float(leaf.min()), float(leaf.max()), float(leaf.std())
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        return ("constant", float(f"{low:.3g}"))
    if leaf.size >= 256:
        centre = float(leaf.mean()) / spread
        return ("spread", round(2 * math.log2(spread)), round(2 * centre))
    return ("few", float(f"{np.sort(leaf.ravel())[0]:.1g}"), float(f"{np.sort(leaf.ravel())[-1]:.1g}"))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
