"""What a candidate must be before it can be asked anything: [batch, time, width] in, the same out, and trainable."""

import zlib

import jax.numpy as jnp
import numpy as np

from nas.gate import program
from nas.gate.probe import Probe, rms
from nas.gate.settings import Fault, GateSettings

LENGTHS = (1, 2, 17, 63, 64, 65)  # edges of chunks, and multiples of none
_PATTERN = 8  # numbers per compressed byte, and more
_DIFFERENTIATED = 1e-3  # relative; another compilation of the same program rounds otherwise
LARGE = 10  # the scale of inputs at which values and gradients are finite still


def check(probe: Probe, settings: GateSettings) -> str:
    """What was seen, in words.

    Raises:
      Fault: naming the length, dtype, parameter or line at which the contract breaks.
    """
    if settings.max_params is not None and probe.params > settings.max_params:
        raise Fault("contract", f"{probe.params:,} parameters, more than {settings.max_params:,}")
    for name, leaf in zip(probe.names, probe.initial, strict=True):
        if leaf.dtype != np.float32:
            raise Fault("contract", f"parameter `{name}` is {leaf.dtype}, not float32")
        if not np.isfinite(leaf).all():
            raise Fault("contract", f"parameter `{name}` is not finite as initialised")
    lengths = _shapes(probe, settings)
    _numbers_elsewhere(probe, settings)
    _finite_values(probe)
    _gradients(probe)
    _far(probe)
    return (
        f"{probe.params:,} parameters; shapes and dtypes hold at {lengths} lengths from 1 to {probe.long}, batch 1, 3 "
        f"and {probe.rows}; values and gradients finite, also in bfloat16, at time {probe.long} and with inputs times "
        f"{LARGE}; all {len(probe.names)} parameters get a gradient"
    )


def _shapes(probe: Probe, settings: GateSettings) -> int:
    """Traces only: the shape and dtype of an output need no numbers."""
    train = probe.program(probe.train, batch=probe.rows)
    if len(train.jaxpr.eqns) > settings.max_operations:
        raise Fault(
            "cost",
            f"the program has {len(train.jaxpr.eqns):,} operations at time {probe.train} (at most "
            f"{settings.max_operations:,}): use lax.scan instead of a Python loop over time",
        )
    few = len(train.jaxpr.eqns) < settings.max_operations / 10
    lengths = LENGTHS if few else LENGTHS[::2]
    for time in lengths:
        probe.program(time, batch=1)
    for time in (1, probe.train + 1):
        probe.program(time, batch=3)
    width, heads = 2 * settings.width, 2 * settings.heads
    out = probe.shapes_at(width, heads, 17)
    if getattr(out, "shape", None) != (2, 17, width):
        raise Fault("contract", f"returns shape {getattr(out, 'shape', None)} at width {width} with {heads} heads")
    return len(lengths) + 3  # the training length, one more, and four times it


def _numbers_elsewhere(probe: Probe, settings: GateSettings) -> None:
    """What a mixer knows is in its parameters: variables of other types and constants count with them."""
    known = sum(map(_numbers_in, program.constants(probe.program(probe.train, batch=probe.rows))))
    allowed = 4 * settings.width**2 + 4096
    if settings.max_params is not None:
        allowed = min(allowed, settings.max_params - probe.params)
    if known + probe.kept > allowed:
        raise Fault(
            "contract",
            f"{probe.kept:,} numbers in variables that are no nnx.Param and {known:,} in constants, beside "
            f"{probe.params:,} parameters: at most {allowed:,} are allowed, make them nnx.Param",
        )


def _numbers_in(constant: np.ndarray) -> int:
    """Its size; of a mask or another pattern, which says little, what is left of it when it is compressed, in bytes."""
    _, codes = np.unique(constant, return_inverse=True)
    left = len(zlib.compress(codes.astype(np.min_scalar_type(codes.max())).tobytes(), 9))
    return constant.size if left * _PATTERN >= constant.size else left


def _finite_values(probe: Probe) -> None:
    x = probe.base("plain")
    for params, scale, words in (
        (probe.initial, 1, "initial parameters"),
        (probe.initial, LARGE, f"initial parameters and inputs of scale {LARGE}"),
        (probe.near, 1, "randomised parameters"),
    ):
        _finite(probe.forward(params, scale * x), words)


def _finite(y: np.ndarray, words: str) -> None:
    bad = ~np.isfinite(y.astype(np.float32))
    if bad.any():
        row, time, _ = np.argwhere(bad)[0]
        raise Fault(
            "contract",
            f"output {time} is not finite (time {y.shape[1]}, batch element {row}, {words}): {bad.mean():.0%} of the "
            f"outputs",
        )


def _gradients(probe: Probe) -> None:
    """Finite as initialised and off it; no parameter without one."""
    x, cotangent = probe.base("plain"), probe.inputs("plain", probe.rows, probe.train)
    dead: set[str] = set(probe.names)
    for params, words in (
        (probe.initial, "initial parameters"),
        (probe.near, "randomised parameters"),
        (probe.bold, ""),
    ):
        y, of_params, of_x = probe.gradients(params, x, cotangent)
        if params is probe.near:
            _same(y, probe.base_output("plain"))
        if words:
            _finite_gradients(probe, of_params, of_x, f"{words}, time {probe.train}")
        largest = max(rms(gradient) for gradient in of_params)
        dead -= {name for name, gradient in zip(probe.names, of_params, strict=True) if rms(gradient) > 1e-12 * largest}
        if words == "randomised parameters" and not dead:
            return
    if dead:
        raise Fault("contract", f"parameter `{min(dead)}` gets no gradient: it changes no output")


def _same(differentiated: np.ndarray, plain: np.ndarray) -> None:
    moved = float(np.abs(differentiated - plain).max()) / rms(plain)
    if moved > _DIFFERENTIATED:
        raise Fault("purity", f"while it is differentiated the output is another one (by {moved:.1e}, relative)")


def _finite_gradients(probe: Probe, of_params: list[np.ndarray], of_x: np.ndarray, words: str) -> None:
    for name, gradient in [*zip(probe.names, of_params, strict=True), ("x", of_x)]:
        if not np.isfinite(gradient.astype(np.float32)).all():
            raise Fault("contract", f"the gradient of `{name}` is not finite ({words})")


def _far(probe: Probe) -> None:
    """Finite at four times the training length and with large inputs, in float32 and in bfloat16."""
    for dtype, scale in ((jnp.float32, LARGE), (jnp.bfloat16, 1), (jnp.bfloat16, LARGE)):
        x = (scale * probe.stretched("plain")).astype(dtype)
        y, of_params, of_x = probe.gradients(probe.initial, x, np.ones_like(x))
        words = f"initial parameters, {jnp.dtype(dtype).name} inputs of scale {scale}"
        _finite(y, words)
        _finite_gradients(probe, of_params, of_x, f"{words}, time {probe.long}")
