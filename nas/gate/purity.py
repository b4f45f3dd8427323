"""A function of its input: nothing kept between calls, nothing shared within a batch, nothing written outside."""

import functools
from collections.abc import Callable

import numpy as np

from nas.gate.double import small_enough
from nas.gate.probe import Probe, rms, text_of
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
    probe.see_unchanged()


def check(probe: Probe) -> str:
    """What was seen, in words.

    Raises:
      Fault: naming what was changed, or the batch element that was seen.
    """
    _unwritten(probe)
    return (
        "the same input gives the same output, also when traced again; no batch element sees another; nothing written"
    )


def last(probe: Probe) -> None:
    """After every other call: the first one again, traced and run, is what it was.

    Raises:
      Fault: of `purity`.
    """
    _unwritten(probe)
    _traced_again(probe, probe.train, probe.rows)
    first = probe.base_output("plain")
    if not np.array_equal(first, probe.forward(probe.near, probe.base("plain")), equal_nan=True):
        raise Fault("purity", f"the same input gives another output after other calls (time {probe.train})")


def _same_again(probe: Probe) -> None:
    """By value from one compiled program, and by program from two traces."""
    first, second = (probe.forward(probe.near, probe.base("plain")) for _ in range(2))
    if not np.array_equal(first, second, equal_nan=True):
        moved = np.abs(first - second).max() / rms(first)
        raise Fault("purity", f"the same input gives another output the second time (by {moved:.1e}, relative)")
    _traced_again(probe, probe.short, probe.crowd)


def _traced_again(probe: Probe, time: int, batch: int) -> None:
    before, after = probe.program(time, batch=batch), probe.program(time, batch=batch, fresh=True)
    if text_of(before) == text_of(after) and all(map(np.array_equal, before.consts, after.consts)):
        return
    x = probe.stretched("plain")[:, :time].repeat(batch, axis=0)
    first, again = probe.forward(probe.near, x), probe.run_again(probe.near, x)
    if not np.allclose(first, again, rtol=1e-5, atol=1e-5 * rms(first)):
        moved = np.abs(first - again).max() / rms(first)
        raise Fault(
            "purity", f"traced again, the mixer computes something else (by {moved:.1e}, relative): keep nothing"
        )


def _batch(probe: Probe) -> None:
    rows = max(2, probe.rows)
    x = probe.inputs("plain", rows, probe.train)
    others = 3 * probe.inputs("plain", rows, probe.train)
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
