"""What a candidate must be before it can be asked anything: [batch, time, width] in, the same out, and trainable."""

import jax.numpy as jnp
import numpy as np

from nas.gate.probe import Probe, rms
from nas.gate.settings import Fault, GateSettings

CHUNK_EDGES = (16, 17, 63, 64, 65)


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
    _finite_values(probe)
    _gradients(probe)
    return (
        f"{probe.params:,} parameters; shapes and dtypes hold at {lengths} lengths from 1 to {probe.long}, batch 1 "
        f"and 3; values and gradients finite; all {len(probe.names)} parameters get a gradient"
    )


def _shapes(probe: Probe, settings: GateSettings) -> int:
    """Traces only: the shape and dtype of an output need no numbers."""
    train = probe.program(probe.train, batch=probe.rows[probe.train])
    if len(train.jaxpr.eqns) > settings.max_operations:
        raise Fault(
            "cost",
            f"the program has {len(train.jaxpr.eqns):,} operations at time {probe.train} (at most "
            f"{settings.max_operations:,}): use lax.scan instead of a Python loop over time",
        )
    few = len(train.jaxpr.eqns) < settings.max_operations / 10
    edges = CHUNK_EDGES if few else CHUNK_EDGES[::3]
    lengths = sorted({1, probe.train - 1, probe.train + 1, probe.long, *edges})
    for index, time in enumerate(lengths):
        probe.program(time, batch=(1, 3)[index % 2])
    probe.program(1, batch=3 if lengths.index(1) % 2 == 0 else 1)
    for time in (1, probe.train):
        probe.program(time, batch=3, dtype=jnp.bfloat16)
    width, heads = 2 * settings.width, 2 * settings.heads
    out = probe.shapes_at(width, heads, 17)
    if getattr(out, "shape", None) != (2, 17, width):
        raise Fault("contract", f"returns shape {getattr(out, 'shape', None)} at width {width} with {heads} heads")
    return len(lengths) + 1


def _finite_values(probe: Probe) -> None:
    x = probe.noise((probe.rows[probe.train], probe.train, probe.settings.width))
    for params, scale, words in (
        (probe.initial, 1, "initial parameters"),
        (probe.initial, 10, "initial parameters and inputs of scale 10"),
        (probe.near, 1, "randomised parameters"),
    ):
        y = probe.forward(params, scale * x)
        if not np.isfinite(y).all():
            row, time, _ = np.argwhere(~np.isfinite(y))[0]
            raise Fault(
                "contract",
                f"output {time} is not finite (time {probe.train}, batch element {row}, {words}): "
                f"{np.mean(~np.isfinite(y)):.0%} of the outputs",
            )


def _gradients(probe: Probe) -> None:
    """Finite as initialised and off it; no parameter without one."""
    x, cotangent, _ = probe.prefix_cotangents
    dead: set[str] = set(probe.names)
    for params, words in (
        (probe.initial, "initial parameters"),
        (probe.near, "randomised parameters"),
        (probe.bold, ""),
    ):
        if params is probe.near:
            of_params, of_x = probe.near_gradients
        else:
            _, of_params, of_x = probe.gradients(params, x, cotangent)
        if words:
            for name, gradient in [*zip(probe.names, of_params, strict=True), ("x", of_x)]:
                if not np.isfinite(gradient).all():
                    raise Fault("contract", f"the gradient of `{name}` is not finite ({words}, time {probe.train})")
        largest = max(rms(gradient) for gradient in of_params)
        dead -= {name for name, gradient in zip(probe.names, of_params, strict=True) if rms(gradient) > 1e-12 * largest}
        if words == "randomised parameters" and not dead:
            return
    if dead:
        raise Fault("contract", f"parameter `{min(dead)}` gets no gradient: it changes no output")
