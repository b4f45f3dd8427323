"""No output sees a later input: by perturbation, by the Jacobian, and by the prefix.

With randomised parameters, so that a leak behind a zero-initialised weight shows, and with finite noise: poisoning
with NaN is wrong, since a masked matrix product computes 0 x NaN. A small difference is repeated in double precision:
a rounding (an FFT sums everything with everything) falls by nine digits, a leak stays.
"""

import numpy as np

from nas.gate import purity
from nas.gate.double import small_enough
from nas.gate.probe import Probe, rms
from nas.gate.settings import Fault


def check(probe: Probe) -> str:
    """What was seen, in words.

    Raises:
      Fault: "output 17 moved by 3e-2 ...", or of `purity`, if the candidate keeps something between calls: every
        comparison here would then be wrong.
    """
    purity.quick(probe)
    seen = 0
    for time in (probe.train, probe.short, probe.long):
        rows = probe.rows[time]
        for index, cuts in enumerate(_cuts(probe, time)):
            seen += len(cuts)
            x = _perturbed(probe, time, cuts, rows)
            _no_move(probe, probe.near, x, cuts, certain=True)
            if index == 0 and time == probe.train:
                _no_move(probe, probe.bold, x, cuts, certain=False)
    pulled = _jacobian(probe)
    _prefix(probe)
    return (
        f"no output moved when later inputs were replaced, at {seen} positions of times {probe.short}, {probe.train} "
        f"and {probe.long}; input gradients of {pulled} prefixes are 0 beyond them; prefixes of the output are "
        f"outputs of the prefix"
    )


def _cuts(probe: Probe, time: int) -> list[np.ndarray]:
    """Positions from which on the input is replaced: one array per run of the program."""
    room = probe.rows[time] - 1
    runs = 2 if time == probe.train else 1
    edges = [edge + shift for edge in (64, 16, 128, 32) for shift in (0, 1, -1) if edge + 1 < time]
    first = (
        [time - 1, 1, time // 2, *edges]
        if time == probe.train
        else [time - 1, *([probe.train + 1] * (time > probe.train))]
    )
    chosen = list(dict.fromkeys(cut for cut in first if 1 <= cut < time))[: room * runs]
    others = np.setdiff1d(np.arange(1, time), chosen)
    wanted = min(room * runs - len(chosen), len(others))
    drawn = probe.generator.choice(others, size=max(wanted, 0), replace=False)
    return [part for part in np.array_split(np.array([*chosen, *drawn], int), runs) if len(part)]


def _perturbed(probe: Probe, time: int, cuts: np.ndarray, rows: int) -> np.ndarray:
    """Row 0 as it is, row i + 1 with noise from cuts[i] on, further rows as row 0."""
    x = np.repeat(probe.base[None, :time], rows, axis=0)
    for row, cut in enumerate(cuts, 1):
        x[row, cut:] = 3 * probe.noise((time - cut, x.shape[2]))
    return x


def _no_move(probe: Probe, params: list[np.ndarray], x: np.ndarray, cuts: np.ndarray, certain: bool) -> None:
    def measure(double: bool) -> tuple[float, int, int]:
        """(largest relative move, the output that made it, the cut behind it)"""
        y = probe.forward(params, x, double=double)
        if not np.isfinite(y).all():
            return (np.inf if certain else 0.0), 0, int(cuts[0])  # `bold` parameters may well overflow
        scale = rms(y[0])
        moves = [np.abs(y[row, :cut] - y[0, :cut]).max(axis=-1) / scale for row, cut in enumerate(cuts, 1)]
        worst = int(np.argmax([move.max() for move in moves]))
        return float(moves[worst].max()), int(np.argmax(moves[worst])), int(cuts[worst])

    difference, output, cut = measure(False)
    if not np.isfinite(difference):
        raise Fault("contract", f"outputs are not finite for inputs of scale 3 from {cut} on (time {x.shape[1]})")
    if not small_enough(difference, lambda: measure(True)[0], certain):
        raise Fault(
            "causality",
            f"output {output} moved by {difference:.1e} (relative) when the inputs from {cut} on changed "
            f"(time {x.shape[1]})",
        )


def _jacobian(probe: Probe) -> int:
    """Random cotangents on the outputs before a cut pull back to nothing at and after it."""
    time = probe.train
    x, cotangent, cuts = probe.prefix_cotangents

    def measure(double: bool) -> tuple[float, int, int]:
        of_x = probe.gradients(probe.near, x, cotangent, double=True)[2] if double else probe.near_gradients[1]
        beyond = [np.abs(of_x[row, cut:]).max(axis=-1) / rms(of_x) for row, cut in enumerate(cuts)]
        worst = int(np.argmax([part.max() for part in beyond]))
        return float(beyond[worst].max()), int(cuts[worst] + np.argmax(beyond[worst])), int(cuts[worst])

    difference, position, cut = measure(False)
    if not small_enough(difference, lambda: measure(True)[0]):
        raise Fault(
            "causality",
            f"outputs before {cut} have a gradient of {difference:.1e} (relative) in input {position} (time {time})",
        )
    return len(cuts)


def _prefix(probe: Probe) -> None:
    """f(x)[:n] = f(x[:n]): nothing depends on how long the sequence is."""

    def output(time: int, double: bool) -> np.ndarray:
        return probe.base_output(time, double)

    def measure(shorter: int, longer: int, double: bool) -> tuple[float, int]:
        a, b = output(shorter, double), output(longer, double)
        moves = np.abs(b[:shorter] - a).max(axis=-1) / rms(a)
        return float(moves.max()), int(np.argmax(moves))

    for shorter, longer in ((probe.short, probe.train), (probe.train, probe.long)):
        difference, position = measure(shorter, longer, False)
        if difference > 1e-5 and not small_enough(
            difference,
            lambda s=shorter, n=longer: measure(s, n, True)[0],  # type: ignore[misc]
        ):
            raise Fault(
                "causality",
                f"output {position} differs by {difference:.1e} (relative) between time {shorter} and time {longer}: "
                f"it depends on the length of the sequence",
            )
