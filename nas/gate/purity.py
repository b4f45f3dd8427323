"""A function of its input: nothing kept between calls, nothing shared within a batch, nothing written outside."""

import functools
import re
from collections.abc import Callable

import numpy as np
from jax.extend import core

from nas.gate.double import small_enough
from nas.gate.probe import Probe, rms
from nas.gate.settings import Fault


def quick(probe: Probe) -> None:
    """What must hold before any two outputs can be compared: the same again, and no batch element in another's.

    Raises:
      Fault: of `purity`.
    """
    _unwritten(probe)
    _same_again(probe)
    _batch(probe)


def _unwritten(probe: Probe) -> None:
    if probe.state_writes:
        raise Fault(
            "purity", f"a call writes to {sorted(probe.state_writes)[0]} of the module: keep no state between calls"
        )
    with probe.candidate("purity"):
        changed = probe.watch.changed() if probe.watch is not None else None
    if changed:
        raise Fault("purity", f"a call changed {changed}")


def check(probe: Probe) -> str:
    """What was seen, in words.

    Raises:
      Fault: naming what was changed, or the batch element that was seen.
    """
    _unwritten(probe)
    return (
        "the same input gives the same output, also when traced again; no batch element sees another; nothing written"
    )


def _same_again(probe: Probe) -> None:
    """By value from one compiled program, and by program from two traces."""
    x = np.repeat(probe.base[None, : probe.short], probe.rows[probe.short], axis=0)
    first, second = (probe.forward(probe.near, x) for _ in range(2))
    if not np.array_equal(first, second, equal_nan=True):
        moved = np.abs(first - second).max() / rms(first)
        raise Fault("purity", f"the same input gives another output the second time (by {moved:.1e}, relative)")
    rows = probe.rows[probe.short]
    before, after = probe.program(probe.short, batch=rows), probe.program(probe.short, batch=rows, fresh=True)
    if _text(before) == _text(after) and all(map(np.array_equal, before.consts, after.consts)):
        return
    again = probe.run_program(after, probe.near, x)
    if not np.allclose(first, again, rtol=1e-5, atol=1e-5 * rms(first)):
        moved = np.abs(first - again).max() / rms(first)
        raise Fault(
            "purity", f"traced again, the mixer computes something else (by {moved:.1e}, relative): keep nothing"
        )


def _text(program: core.ClosedJaxpr) -> str:
    """A program without the addresses of the functions it was made from."""
    return re.sub(r"0x[0-9a-f]+", "", str(program))


def _batch(probe: Probe) -> None:
    time, rows = probe.train, probe.rows[probe.train]
    x = probe.noise((rows, time, probe.settings.width))
    others = 3 * probe.noise(x.shape)
    kept = rows // 2
    others[kept] = x[kept]
    order = np.roll(np.arange(rows), 1)

    @functools.cache
    def output(double: bool) -> np.ndarray:
        return probe.forward(probe.near, x, double=double)

    def alone(double: bool) -> float:
        a, b = output(double), probe.forward(probe.near, others, double=double)
        return float(np.abs(a[kept] - b[kept]).max()) / rms(a)

    def permuted(double: bool) -> float:
        a, b = output(double), probe.forward(probe.near, x[order], double=double)
        return float(np.abs(a[order] - b).max()) / rms(a)

    for measure, words in ((alone, "when the other batch elements changed"), (permuted, "with the order of the batch")):
        _judge(measure, f"batch element {kept} moved by {{:.1e}} (relative) {words}")


def _judge(measure: Callable[[bool], float], words: str) -> None:
    difference = measure(False)
    if difference > 1e-6 and not small_enough(difference, lambda: measure(True)):
        raise Fault("purity", words.format(difference))
