"""`step` over time is `__call__`: what lets a mixer that was trained in parallel decode in constant memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nas.gate.cost import count
from nas.gate.double import NoDouble
from nas.gate.probe import Probe, rms
from nas.gate.settings import Fault, GateSettings

TOLERANCE = 2e-3  # relative RMS in float32; flash-linear-attention asks the same of generation against parallel logits
IN_DOUBLE = 1e-5
DEARER = 8  # those of the baselines do 0.4 to 1.0 times the arithmetic of `__call__`


def check(probe: Probe, settings: GateSettings) -> tuple[str, int | None]:
    """(what was seen, bytes of the state at batch 1 or None without a step).

    Raises:
      Fault: naming the position at which `step` and `__call__` part, or the leaf of the state that changes its shape.
    """
    defined = [name for name in ("init_state", "step") if callable(getattr(probe.mixer, name, None))]
    if not defined:
        return "no step", None
    if len(defined) == 1:
        raise Fault(
            "parity", f"`{defined[0]}` is defined without its counterpart: define both init_state and step, or none"
        )
    state_bytes = _state(probe, settings)
    # Well beyond the training length, where it must not forget; the second batch element is there to be left alone.
    beside = probe.inputs("plain", 1, probe.long)
    x = np.concatenate([probe.stretched("plain"), beside])

    def measure(double: bool) -> tuple[float, int]:
        y, stepped = probe.prefix_output("plain", probe.long, double), probe.decoded(probe.near, x, double=double)[0]
        if not np.isfinite(stepped).all():
            return math.inf, int(np.argwhere(~np.isfinite(stepped))[0][0])
        errors = np.sqrt(np.mean(np.square((stepped - y).astype(np.float64)), axis=1)) / rms(y)
        return float(np.sqrt(np.mean(errors**2))), int(np.argmax(errors > TOLERANCE))

    difference, position = measure(False)
    if difference > TOLERANCE:
        try:
            parted = difference > 0.1 or measure(True)[0] > IN_DOUBLE
        except NoDouble:
            parted = True
        if parted:
            raise Fault(
                "parity", f"`step` differs from `__call__` by {difference:.1e} (relative), from position {position} on"
            )
    _cost(probe)
    return (
        f"step over {probe.long} tokens = __call__ within {difference:.1e}; state of {state_bytes:,} bytes",
        state_bytes,
    )


def _cost(probe: Probe) -> None:
    """A step does about what `__call__` does per token: it does not go through its history."""
    rows, time = min(2, probe.rows), probe.train
    stepped = count(probe.step_program(time, rows)).work / rows
    called = count(probe.program(time, batch=probe.rows)).work / probe.rows
    if stepped > DEARER * called:
        raise Fault(
            "parity",
            f"`step` does {stepped / called:.0f} times the arithmetic of `__call__` per token (at most {DEARER}): keep "
            f"a state that is read at once, and no history",
        )


def _state(probe: Probe, settings: GateSettings) -> int:
    """Abstractly: the state keeps its structure, shapes and dtypes from one step to the next."""

    def one_step(params: Any, rest: Any, x_t: Any) -> Any:
        module = probe.module(params, rest)
        state = module.init_state(x_t.shape[0])
        y_t, after = module.step(x_t, state)
        return y_t, state, after

    for batch, dtype in ((1, jnp.bfloat16), (3, jnp.float32), (1, jnp.float32)):
        x_t = jax.ShapeDtypeStruct((batch, settings.width), dtype)
        with probe.candidate("parity"):
            y_t, state, after = jax.eval_shape(one_step, probe.initial, probe.rest, x_t)
        shape, kind = getattr(y_t, "shape", None), getattr(y_t, "dtype", None)
        if shape != x_t.shape or kind not in (x_t.dtype, jnp.float32):  # as in `__call__`
            raise Fault("parity", f"`step` returns {_words(y_t)} for {_words(x_t)}: cast the output to x_t.dtype")
        before_tree: Any = jax.tree.structure(state)
        if before_tree != jax.tree.structure(after):
            raise Fault("parity", "`step` returns a state of another structure than `init_state`")
        for (path, before), left in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(after), strict=True):
            if (before.shape, before.dtype) != (left.shape, left.dtype):
                name = jax.tree_util.keystr(path) or "the state"
                raise Fault("parity", f"`step` turns {name} of {_words(before)} into {_words(left)}")
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if settings.max_state_bytes is not None and size > settings.max_state_bytes:
        raise Fault("parity", f"the state has {size:,} bytes, more than {settings.max_state_bytes:,}")
    return size


def _words(aval: Any) -> str:
    return f"{getattr(aval, 'dtype', type(aval).__name__)}{list(getattr(aval, 'shape', ()))}"
