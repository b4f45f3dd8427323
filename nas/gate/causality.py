"""No output sees a later input: by perturbation at every position, by the Jacobian, and by the prefix.

With randomised parameters, so that a leak behind a zero-initialised weight shows, with inputs of several kinds and
sizes, so that one shows which opens for some of them alone, and with finite noise: poisoning with NaN is wrong, since
a masked matrix product computes 0 x NaN. At the training shape every position is cut at, up to times of 512: a leak
from one position to the one before it shows at that cut alone. A small difference is repeated in double precision: a
rounding (an FFT sums everything with everything) falls by nine digits, a leak stays.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nas.gate import program, purity
from nas.gate.contract import LENGTHS
from nas.gate.double import PLAIN, ROUNDED, small_enough
from nas.gate.probe import KINDS, Probe, rms
from nas.gate.settings import Fault

EVERY_POSITION = 512  # up to this time there is a cut at each; above, as many as make as many tokens
_OPERATIONS = 600  # of the programs of short lengths together: each is compiled
_REPEATED = 3  # of the runs that differ at all, the largest and as many drawn ones are repeated in double precision
_AWAY = 3  # runs at each of the parameters that are far from those of the start
_MIXES = 1e-5  # relative: what an earlier input changes at least

Params = list[np.ndarray]


@dataclass(frozen=True)
class Cut:
    """Inputs of one kind, each row replaced from its own position on."""

    kind: str
    positions: np.ndarray
    x: np.ndarray


def check(probe: Probe) -> str:
    """What was seen, in words.

    Raises:
      Fault: "output 17 moved by 3e-2 ...", of `purity`, if the candidate keeps something between calls: every
        comparison here would then be wrong; or of `contract`, if no output sees an earlier input.
    """
    purity.quick(probe)
    positions = _everywhere(probe)
    _elsewhere(probe)
    _crowd(probe)
    pulled = _jacobian(probe)
    _at_long(probe)
    lengths = _prefixes(probe)
    _mixes(probe)
    return (
        f"no output moved when later inputs were replaced, at {positions} of the {probe.train - 1} positions of time "
        f"{probe.train}, batch {probe.rows}, with inputs of {len(KINDS)} kinds, at time {probe.long} "
        f"and in a batch of {probe.crowd}; input gradients of {pulled} prefixes are 0 beyond them; at lengths "
        f"{lengths} outputs are prefixes of one another"
    )


# Perturbation.


def _everywhere(probe: Probe) -> int:
    """At the training shape: at every position with more of the kind, at every second one also with noise."""
    seen: set[int] = set()
    moved: list[tuple[float, Cut]] = []
    limit = _limit(probe)
    for sweep in range(2):
        for index, cuts in islice(enumerate(_positions(probe)), 0, None, 1 + sweep):
            cut = _cut(probe, KINDS[(index + 3 * sweep) % len(KINDS)], cuts, noise=(0.3, 1.0, 3.0)[index % 3] * sweep)
            seen |= set(cuts.tolist())
            if difference := _judge(probe, cut, limit):
                moved = sorted([*moved, (difference, cut)], key=lambda move: -move[0])
                if len(moved) > 2 * _REPEATED:
                    del moved[int(probe.generator.integers(_REPEATED, len(moved)))]
    for difference, cut in moved:
        if not small_enough(difference, lambda cut=cut: _measure(probe, cut, double=True)[0]):  # type: ignore[misc]
            raise _leak(probe, cut)
    return len(seen)


def _positions(probe: Probe) -> Iterator[np.ndarray]:
    """The cuts of each run, one a row, edges of chunks first."""
    time, rows = probe.train, probe.rows
    edges = [time - 1, 1, time // 2, *(edge + shift for edge in (64, 16, 128, 32) for shift in (0, 1, -1))]
    first = list(dict.fromkeys(cut for cut in edges if 1 <= cut < time))
    others = probe.generator.permutation(np.setdiff1d(np.arange(1, time), first))
    wanted = time if time <= EVERY_POSITION else max(EVERY_POSITION**2 // time, 2 * rows)
    cuts = np.array([*first, *others], int)[:wanted]
    full = np.resize(cuts, -(-len(cuts) // rows) * rows)
    yield from full.reshape(-1, rows)


def _cut(probe: Probe, kind: str, cuts: np.ndarray, noise: float) -> Cut:
    """Row i replaced from cuts[i] on, by more of the same kind, or by noise of `noise` times its size."""
    base = probe.base(kind)
    later = probe.inputs(kind, *base.shape[:2]) if noise == 0 else noise * rms(base) * probe.noise(base.shape)
    replaced = np.arange(base.shape[1])[None, :, None] >= cuts[:, None, None]
    return Cut(kind, cuts, np.where(replaced, later, base).astype(np.float32))


def _measure(probe: Probe, cut: Cut, double: bool) -> tuple[float, int, int]:
    """(largest relative move, the output that made it, the cut behind it), at the parameters `near`."""
    return _moves(probe.base_output(cut.kind, double), probe.forward(probe.near, cut.x, double=double), cut.positions)


def _moves(before: np.ndarray, after: np.ndarray, cuts: np.ndarray) -> tuple[float, int, int]:
    """Not finite if an output before its cut is not."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = rms(before)
        moves = [np.abs(after[row, :cut] - before[row, :cut]).max(axis=-1) / size for row, cut in enumerate(cuts)]
    worst = int(np.argmax([move.max() for move in moves]))
    return float(moves[worst].max()), int(np.argmax(moves[worst])), int(cuts[worst])


def _judge(probe: Probe, cut: Cut, limit: float) -> float:
    """The relative move at `near`, 0 where inputs so large overflow.

    Raises:
      Fault: if it is larger than any rounding.
    """
    difference, _, position = _measure(probe, cut, double=False)
    if not math.isfinite(difference):
        if cut.kind == "large":
            return 0.0
        raise Fault("contract", f"outputs are not finite for {cut.kind} inputs from {position} on (time {probe.train})")
    if difference > limit:
        raise _leak(probe, cut)
    return difference


def _limit(probe: Probe) -> float:
    """What rounding can make of nothing in float32, or in a program that casts to less."""
    kinds = {
        str(out.aval.dtype)
        for equation in program.equations(probe.program(probe.train, batch=probe.rows).jaxpr)
        for out in equation.outvars
        if hasattr(out.aval, "dtype")
    }
    return ROUNDED if kinds & {"bfloat16", "float16"} else PLAIN


def _leak(probe: Probe, cut: Cut) -> Fault:
    difference, output, position = _measure(probe, cut, double=False)
    return Fault(
        "causality",
        f"output {output} moved by {difference:.1e} (relative) when the inputs from {position} on changed "
        f"(time {probe.train}, batch {probe.rows}, {cut.kind} inputs)",
    )


def _elsewhere(probe: Probe) -> None:
    """At parameters far from those of the start, where what overflows tells nothing."""
    time = probe.train
    for params in (probe.bold, probe.up, probe.down):
        for kind in KINDS[:_AWAY]:
            cuts = probe.generator.integers(1, time, size=probe.rows)
            cut = _cut(probe, kind, cuts, noise=1.0)

            def measure(double: bool, params: Params = params, cut: Cut = cut) -> tuple[float, int, int]:
                before, after = (probe.forward(params, x, double=double) for x in (probe.base(cut.kind), cut.x))
                return _moves(before, after, cut.positions)

            difference, output, position = measure(False)
            if not math.isfinite(difference):
                continue
            if not small_enough(difference, lambda measure=measure: measure(True)[0], certain=False):  # type: ignore[misc]
                raise Fault(
                    "causality",
                    f"output {output} moved by {difference:.1e} (relative) when the inputs from {position} on changed "
                    f"(time {time}, parameters far from their initial values)",
                )


def _crowd(probe: Probe) -> None:
    """In a batch larger than in training, the same: each row but the first replaced from a position of its own on."""
    kind, time, batch = "normed", probe.short, probe.crowd
    cuts = np.array([time, *probe.generator.integers(1, time, size=batch - 1)])
    replaced = np.arange(time)[None, :, None] >= cuts[:, None, None]
    x = np.where(replaced, probe.inputs(kind, batch, time), probe.stretched(kind)[:, :time])

    def measure(double: bool) -> tuple[float, int, int]:
        alone = probe.prefix_output(kind, probe.train, double)[None, :time].repeat(batch, axis=0)
        return _moves(alone, probe.forward(probe.near, x, double=double), cuts)

    difference, output, _ = measure(False)
    if not difference <= 1e-5 and not small_enough(difference, lambda: measure(True)[0]):
        raise Fault(
            "causality",
            f"output {output} differs by {difference:.1e} (relative) between time {time}, batch {batch}, and time "
            f"{probe.train}, batch {probe.rows}: it depends on the length of the sequence, or of the batch",
        )


# The Jacobian.


def _jacobian(probe: Probe) -> int:
    """Random cotangents on the outputs before a cut pull back to nothing at and after it."""
    time, pulled = probe.train, 0
    for kind in ("plain", "words"):
        cuts = probe.generator.integers(1, time, size=probe.rows)
        if kind == "plain":
            cuts[: min(2, len(cuts))] = [time - 1, 1][: len(cuts)]
        cotangent = probe.noise(probe.base(kind).shape)
        cotangent[np.arange(time)[None, :] >= cuts[:, None]] = 0
        _no_pull(probe, probe.base(kind), cotangent, cuts)
        pulled += len(cuts)
    return pulled


def _no_pull(probe: Probe, x: np.ndarray, cotangent: np.ndarray, cuts: np.ndarray) -> None:
    def measure(double: bool) -> tuple[float, int, int]:
        of_x = probe.gradients(probe.near, x, cotangent, double=double)[2]
        beyond = [np.abs(of_x[row, cut:]).max(axis=-1) / rms(of_x) for row, cut in enumerate(cuts)]
        worst = int(np.argmax([part.max() for part in beyond]))
        return float(beyond[worst].max()), int(cuts[worst] + np.argmax(beyond[worst])), int(cuts[worst])

    difference, position, cut = measure(False)
    if not small_enough(difference, lambda: measure(True)[0]):
        raise Fault(
            "causality",
            f"outputs before {cut} have a gradient of {difference:.1e} (relative) in input {position} "
            f"(time {x.shape[1]})",
        )


# Other lengths.


def _at_long(probe: Probe) -> None:
    """At four times the training length, with inputs replaced just beyond it and anywhere, forward and backward."""
    kind, time = "normed", probe.long
    before = probe.prefix_output(kind, time)[None]
    for cut in (probe.train + 1, int(probe.generator.integers(probe.train + 2, time))):
        cuts = np.array([cut])
        x = probe.stretched(kind).copy()
        x[:, cut:] = probe.inputs(kind, 1, time - cut)
        cotangent = probe.noise(x.shape)
        cotangent[:, cut:] = 0

        def measure(double: bool, x: np.ndarray = x, cuts: np.ndarray = cuts) -> float:
            if double:
                whole = probe.prefix_output(kind, time, True)[None]
                return _moves(whole, probe.forward(probe.near, x, double=True), cuts)[0]
            return 0.0

        after = probe.gradients(probe.near, x, cotangent)[0]
        difference, output, position = _moves(before, after, cuts)
        if not small_enough(difference, lambda measure=measure: measure(True)):  # type: ignore[misc]
            raise Fault(
                "causality",
                f"output {output} moved by {difference:.1e} (relative) when the inputs from {position} on changed "
                f"(time {time})",
            )
        _no_pull(probe, x, cotangent, cuts)


def _prefixes(probe: Probe) -> list[int]:
    """f(x)[:n] = f(x[:n]): nothing depends on how long the sequence is.

    As many of the short lengths as can be compiled in a second; which ones differs by candidate.
    """
    operations = sum(1 for _ in program.equations(probe.program(probe.train, batch=probe.rows).jaxpr))
    few = int(np.clip(_OPERATIONS // operations, 2, len(LENGTHS)))
    drawn = sorted(probe.generator.permutation([time for time in LENGTHS if time < probe.long])[:few].tolist())
    _prefix(probe, "words", probe.short, probe.train)
    for time in (probe.short, probe.long, *drawn):
        if time != probe.train:
            _prefix(probe, "normed", min(time, probe.train), max(time, probe.train))
    return sorted({*drawn, probe.short, probe.train, probe.long})


def _prefix(probe: Probe, kind: str, shorter: int, longer: int) -> None:
    def measure(double: bool) -> tuple[float, int]:
        a, b = probe.prefix_output(kind, shorter, double), probe.prefix_output(kind, longer, double)
        moves = np.abs(b[:shorter] - a).max(axis=-1) / rms(a)
        return float(moves.max()), int(np.argmax(moves))

    difference, position = measure(False)
    if not difference <= 1e-5 and not small_enough(difference, lambda: measure(True)[0]):
        raise Fault(
            "causality",
            f"output {position} differs by {difference:.1e} (relative) between time {shorter} and time {longer}: "
            f"it depends on the length of the sequence, or of the batch",
        )


def _mixes(probe: Probe) -> None:
    """Some output moves when an earlier input does: else it is no token mixer."""
    time = probe.train
    for params in (probe.near, probe.bold, probe.up, probe.down):
        for kind in ("normed", "plain"):
            base = probe.base(kind)
            cuts = probe.generator.integers(1, time, size=probe.rows)
            earlier = np.arange(time)[None, :, None] < cuts[:, None, None]
            x = np.where(earlier, probe.inputs(kind, *base.shape[:2]), base).astype(np.float32)
            before, after = probe.forward(params, base), probe.forward(params, x)
            moves, _, _ = _moves(before[:, ::-1], after[:, ::-1], time - cuts)  # of the outputs from each cut on
            if moves > _MIXES:
                return
    raise Fault(
        "contract",
        f"mixes no time: no output of time {time} moves by more than {_MIXES:.0e} (relative) when the inputs before "
        f"it change",
    )
