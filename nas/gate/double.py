"""The same program in double precision: what decides whether a small difference is a leak or a rounding.

A candidate that casts to float32 inside would round alike under `jax.enable_x64`, so it is not traced again: the
float32 program is taken as it was traced and each of its equations is evaluated in float64. Casts to less than
float32 and `reduce_precision` round as they did: what is left of a number when it is rounded is information too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_WIDE: dict[np.dtype[Any], np.dtype[Any]] = {np.dtype("complex64"): np.dtype("complex128")}
_NARROW = {np.dtype(kind): kind for kind in (jnp.float16, jnp.bfloat16)}
_WIDE |= {np.dtype(kind): np.dtype("float64") for kind in ("float32", "float16", jnp.bfloat16)}

PLAIN = 1e-4  # a relative difference that no float32 rounding makes under ordinary parameters
ROUNDED = 1e-2  # and none that goes on to a cast to less
NO_DOUBLE = 1e-6  # what float32 may differ by where there is nothing to compare with
IN_DOUBLE = 1e-9


class NoDouble(Exception):
    """The program holds a primitive with no counterpart in float64."""


def small_enough(
    difference: float, in_double: Callable[[], float], certain: bool = True, limit: float = ROUNDED
) -> bool:
    """Whether a relative difference is a rounding; `in_double` repeats the measurement in float64."""
    if difference == 0:
        return True
    if certain and difference > limit:
        return False
    try:
        return in_double() <= IN_DOUBLE
    except NoDouble:
        return difference <= NO_DOUBLE


def in_double(program: core.ClosedJaxpr) -> Callable[..., list[Any]]:
    """`program` as a function of flat float64 arguments. To be traced under `jax.enable_x64(True)`.

    Raises (when traced):
      NoDouble: if it holds a primitive with no counterpart in float64.
    """
    return lambda *arguments: _run(program.jaxpr, program.consts, [_widen(value) for value in arguments])


def _widen(value: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    wide = _WIDE.get(dtype) if isinstance(dtype, np.dtype) else None
    return value if wide is None else jnp.asarray(value).astype(wide)


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        literal = isinstance(atom, core.Literal)
        return _widen(np.asarray(atom.val, getattr(atom.aval, "dtype", None))) if literal else values[atom]

    values.update(zip(jaxpr.constvars, map(_widen, consts), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        outputs = _equation(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(equation: Any, inputs: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(params, inputs)
    if name == "cond":
        branches = [lambda *args, b=branch: tuple(_run(b.jaxpr, b.consts, args)) for branch in params["branches"]]
        return list(jax.lax.switch(inputs[0], branches, *inputs[1:]))
    if name in ("custom_jvp_call", "custom_vjp_call"):
        inner = params["call_jaxpr"]
        return _run(inner.jaxpr, inner.consts, inputs)
    if name == "custom_linear_solve":
        lengths, solve = params["const_lengths"], params["jaxprs"].solve
        first = lengths.matvec + lengths.vecmat
        return _run(solve.jaxpr, solve.consts, [*inputs[first : first + lengths.solve], *inputs[sum(lengths) :]])
    if isinstance(inner := params.get("jaxpr"), core.ClosedJaxpr):
        return _run(inner.jaxpr, inner.consts, inputs)
    if isinstance(inner, core.Jaxpr):  # remat
        return _run(inner, (), inputs)
    if name in ("while", "pallas_call", "bitcast_convert_type", "custom_root"):
        raise NoDouble(name)
    narrow = _NARROW.get(np.dtype(params["new_dtype"])) if name == "convert_element_type" else None
    if narrow is not None:
        return [jax.lax.convert_element_type(jax.lax.convert_element_type(inputs[0], narrow), jnp.float64)]
    wide = {key: _WIDE.get(value, value) if isinstance(value, np.dtype) else value for key, value in params.items()}
    outputs = equation.primitive.bind(*inputs, **wide)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _scan(params: dict[str, Any], inputs: list[Any]) -> list[Any]:
    body, consts_end = params["jaxpr"], params["num_consts"]
    carry_end = consts_end + params["num_carry"]
    consts = inputs[:consts_end]

    def step(carry: Any, xs: Any) -> tuple[Any, Any]:
        outputs = _run(body.jaxpr, body.consts, [*consts, *carry, *xs])
        return tuple(outputs[: params["num_carry"]]), tuple(outputs[params["num_carry"] :])

    carry, ys = jax.lax.scan(
        step,
        tuple(inputs[consts_end:carry_end]),
        tuple(inputs[carry_end:]),
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*carry, *ys]
