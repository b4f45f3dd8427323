"""What a program costs, read from its jaxpr: nothing is run, so a million tokens are as cheap to ask about as ten.

XLA's own count takes a scan's body once; here it is multiplied by the trip count.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from nas.gate.probe import Probe
from nas.gate.program import inside
from nas.gate.settings import Fault, GateSettings

# Beside one, two and four times the training length: a quadratic term with a small factor shows only where it outgrows
# the linear one.
LENGTHS = (4096, 1_048_576)
SHORTEST = 256  # below, the cost grows as the first chunk does
SAME = 1.5  # the arithmetic per sequence of two batches: padding and segments differ, an exponent does not
F32, BF16 = jnp.float32, jnp.bfloat16
ENOUGH_OPERATIONS = 4_000  # a program this large was unrolled over time in Python: longer ones take too long to trace

_FREE = frozenset(
    [
        "reshape",
        "squeeze",
        "expand_dims",
        "bitcast_convert_type",
        "stop_gradient",
        "copy_p",
        "name",
        "sharding_constraint",
        "pvary",
        "broadcast_in_dim",
        "iota",
        "optimization_barrier",
        "split",
    ]
)
_MOVING = frozenset(
    [
        "transpose",
        "slice",
        "dynamic_slice",
        "concatenate",
        "pad",
        "rev",
        "select_n",
        "convert_element_type",
        "copy",
        "gather",
        "real",
        "imag",
        "complex",
        "device_put",
        "and",
        "or",
        "not",
        "xor",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "lt_to",
        "le_to",
        "is_finite",
        "reduce_precision",
    ]
)
_SCANNED = frozenset(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"])


class UnknownTripCount(ValueError):
    """A loop whose number of turns is not in the program: its cost cannot be told."""


@dataclass(frozen=True)
class Cost:
    """Of one run of a program.

    Attributes:
      flops: arithmetic; a multiply-add is two.
      work: arithmetic and elements moved: what must not grow faster than time either.
      largest_bytes: of the largest intermediate.
      peak_bytes: of all that is alive at once, where nothing is fused and each value goes after its last use.
      operations: equations in the program, loop bodies once.
    """

    flops: float = 0.0
    work: float = 0.0
    largest_bytes: float = 0.0
    peak_bytes: float = 0.0
    operations: int = 0

    def then(self, other: "Cost", times: float = 1) -> "Cost":
        return Cost(
            self.flops + times * other.flops,
            self.work + times * other.work,
            max(self.largest_bytes, other.largest_bytes),
            max(self.peak_bytes, other.peak_bytes),
            self.operations + other.operations,
        )


def flops(fn: Callable[..., Any], *avals: Any) -> float:
    """FLOPs of `fn(*avals)`, loops multiplied by their trip counts; `avals` are arrays or `jax.ShapeDtypeStruct`s.

    `flops(jax.grad(loss), params, batch)` is what one training step does. Counted: matrix products and convolutions
    2 per multiply-add, FFT 5 n log2 n, sort n log2 n, reductions their input, all other arithmetic one per element.

    Raises:
      UnknownTripCount: if a `while` loop has no static trip count.
    """
    return count(jax.make_jaxpr(fn)(*avals)).flops


def count(program: core.ClosedJaxpr) -> Cost:
    """The cost of one run of `program`.

    Raises:
      UnknownTripCount: if a `while` loop has no static trip count.
    """
    return _count(program.jaxpr, {})


def _count(jaxpr: Any, seen: dict[int, Cost]) -> Cost:
    if id(jaxpr) not in seen:
        cost, last = Cost(), _last_uses(jaxpr)
        alive = sum(_bytes(var.aval) for var in (*jaxpr.invars, *jaxpr.constvars))
        for index, equation in enumerate(jaxpr.eqns):
            here = _equation(equation, seen)
            given = sum(_bytes(atom.aval) for atom in equation.invars) if here.peak_bytes else 0.0
            made = sum(_bytes(out.aval) for out in equation.outvars)
            cost = cost.then(replace(here, peak_bytes=alive + max(made, here.peak_bytes - given)))
            alive += made - sum(_bytes(var.aval) for var in last.get(index, ()))
        seen[id(jaxpr)] = cost
    return seen[id(jaxpr)]


def _last_uses(jaxpr: Any) -> dict[int, list[Any]]:
    """Index of an equation -> what nothing reads after it."""
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last |= {atom: index for atom in (*equation.invars, *equation.outvars) if not isinstance(atom, core.Literal)}
    kept = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    going: dict[int, list[Any]] = {}
    for atom, index in last.items():
        if atom not in kept:
            going.setdefault(index, []).append(atom)
    return going


def _equation(equation: Any, seen: dict[int, Cost]) -> Cost:
    name, params = equation.primitive.name, equation.params
    here = Cost(largest_bytes=max((_bytes(out.aval) for out in equation.outvars), default=0.0), operations=1)
    if name == "while":
        raise UnknownTripCount("a `while` loop has no static trip count: use lax.scan, or fori_loop with static bounds")
    if name == "scan":
        return here.then(_count(params["jaxpr"].jaxpr, seen), times=params["length"])
    if name == "cond":
        branches = [_count(branch.jaxpr, seen) for branch in params["branches"]]
        return here.then(
            Cost(
                max(branch.flops for branch in branches),
                max(branch.work for branch in branches),
                max(branch.largest_bytes for branch in branches),
                max(branch.peak_bytes for branch in branches),
                sum(branch.operations for branch in branches),
            )
        )
    if name == "pallas_call":
        return here.then(_count(params["jaxpr"], seen), times=math.prod(params["grid_mapping"].grid))
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return here.then(_count(params["call_jaxpr"].jaxpr, seen))
    if name == "custom_linear_solve":  # its other programs are for the derivative
        return here.then(_count(params["jaxprs"].solve.jaxpr, seen))
    if name not in _ARITHMETIC and (jaxprs := inside(equation)):
        for jaxpr in jaxprs:  # jit, remat, closed_call: each run once
            here = here.then(_count(jaxpr, seen))
        return here
    done, moved = _leaf(name, equation)
    return replace(here, flops=done, work=done + moved)


def _size(aval: Any) -> float:
    return float(math.prod(getattr(aval, "shape", ())))


def _bytes(aval: Any) -> float:
    dtype = getattr(aval, "dtype", None)
    return _size(aval) * (dtype.itemsize if isinstance(dtype, np.dtype) else 8)


def _leaf(name: str, equation: Any) -> tuple[float, float]:
    """(FLOPs, elements moved) of an equation without a jaxpr inside."""
    inputs, out = [atom.aval for atom in equation.invars], sum(_size(var.aval) for var in equation.outvars)
    if name in _ARITHMETIC:
        return _ARITHMETIC[name](inputs, out, equation.params), 0.0
    if name in _FREE:
        return 0.0, 0.0
    if name == "dynamic_update_slice":  # in place inside a loop: only what is written moves
        return 0.0, _size(inputs[1])
    if name.startswith("scatter"):
        return (0.0 if name == "scatter" else _size(inputs[2])), _size(inputs[2])
    if name in _MOVING:
        return 0.0, out
    if name in _SCANNED:
        return out, 0.0
    if name.startswith(("reduce_", "arg")):
        return sum(map(_size, inputs)), 0.0
    return out, 0.0


def _dot(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    (contracted, _), _ = params["dimension_numbers"]
    return 2 * out * math.prod(inputs[0].shape[axis] for axis in contracted)


def _conv(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    kernel = inputs[1]
    out_features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    return 2 * out * _size(kernel) / max(out_features, 1)


def _fft(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    length = math.prod(params["fft_lengths"])
    return 5 * max(out, _size(inputs[0])) * math.log2(max(length, 2))


def _sort(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    return out * math.log2(max(inputs[0].shape[params.get("dimension", -1)], 2))


def _window(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    return out * math.prod(params["window_dimensions"])


def _square(inputs: list[Any], out: float, params: dict[str, Any], factor: float) -> float:
    """Factorisations: `factor` n^3 per matrix."""
    return factor * _size(inputs[0]) * min(inputs[0].shape[-2:])


def _solve(inputs: list[Any], out: float, params: dict[str, Any]) -> float:
    return out * inputs[0].shape[-1]


_ARITHMETIC: dict[str, Callable[[list[Any], float, dict[str, Any]], float]] = {
    "dot_general": _dot,
    "ragged_dot": lambda inputs, out, params: 2 * out * inputs[0].shape[-1],
    "conv_general_dilated": _conv,
    "fft": _fft,
    "sort": _sort,
    "top_k": lambda inputs, out, params: _size(inputs[0]) * math.log2(max(inputs[0].shape[-1], 2)),
    "reduce_window": _window,
    "reduce_window_sum": _window,
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "select_and_scatter_add": _window,
    "select_and_gather_add": _window,
    "triangular_solve": _solve,
    "cholesky": partial(_square, factor=1 / 3),
    "lu": partial(_square, factor=2 / 3),
    "qr": partial(_square, factor=2.0),
    "geqrf": partial(_square, factor=2.0),
    "householder_product": partial(_square, factor=2.0),
    "svd": partial(_square, factor=20.0),
    "eigh": partial(_square, factor=9.0),
    "eig": partial(_square, factor=25.0),
    "schur": partial(_square, factor=25.0),
}


@dataclass(frozen=True)
class Growth:
    """Of the forward pass in time: the largest local exponents, and FLOPs per token at the training length."""

    flops: float
    memory: float
    flops_per_token: float
    longest: int


def check(probe: Probe, settings: GateSettings) -> tuple[str, Growth]:
    """What was seen, in words and numbers.

    Raises:
      Fault: if FLOPs, elements moved or the largest intermediate grow too fast, or too much is done per token.
    """
    try:
        growth = _growth(probe, settings)
    except UnknownTripCount as error:
        raise Fault("cost", str(error)) from None
    limit = settings.max_flops_per_token
    if limit is not None and growth.flops_per_token > limit:
        raise Fault(
            "cost",
            f"{growth.flops_per_token:,.0f} FLOPs per token at time {settings.train_time}, more than {limit:,.0f}",
        )
    seen = (
        f"arithmetic grows with exponent {growth.flops:.2f}, memory with {growth.memory:.2f}, "
        f"up to time {growth.longest}; {growth.flops_per_token:,.0f} FLOPs per token at time {settings.train_time}"
    )
    return seen, growth


def _growth(probe: Probe, settings: GateSettings) -> Growth:
    """Of what is trained: at its batch, from its length on, so that the lengths overlap with those that were run."""
    batch, train = probe.rows, count(probe.program(settings.train_time, batch=probe.rows))
    start = max(SHORTEST, 1 << (settings.train_time.bit_length() - 1))
    near = (start, 2 * start, 4 * start)
    costs: dict[int, Cost] = {}
    for time in (*near, *(length for length in LENGTHS if length > near[-1])):
        costs[time] = count(probe.program(time, batch=batch))
        if len(costs) >= 4:  # an obvious quadratic is not traced any further
            _judge(costs, settings)
            if costs[time].operations > ENOUGH_OPERATIONS:
                break
    _judge(costs, settings)
    _per_sequence(probe, settings, train)
    unrolled = costs[max(costs)].operations > 2 * costs[start].operations
    far = 2 * start if unrolled else max(65_536, 4 * start)
    first = max(SHORTEST, settings.train_time)
    backward = {time: count(probe.gradient_program(time, batch=batch)) for time in (first, far)}
    _judge(backward, settings, "backward pass")
    return Growth(
        flops=_slope(costs, "work"),
        memory=_slope(costs, "peak_bytes"),
        flops_per_token=train.flops / settings.train_time / batch,
        longest=max(costs),
    )


def _per_sequence(probe: Probe, settings: GateSettings, train: Cost) -> None:
    """One sequence costs what it costs in a batch, and in bfloat16 what it costs in float32."""
    time = settings.train_time
    alone = count(probe.program(time, batch=1)).flops
    in_batch = train.flops / probe.rows
    few, crowd = (count(probe.program(probe.short, batch=rows)).flops / rows for rows in (probe.rows, probe.crowd))
    long, long_narrow = (count(probe.gradient_program(probe.long, dtype=dtype)).flops for dtype in (F32, BF16))
    for cost, least, words in (
        (in_batch, alone, f"in a batch of {probe.rows} it does {{:.2f}} times the arithmetic of a batch of 1"),
        (crowd, few, f"in a batch of {probe.crowd} it does {{:.2f}} times that of a batch of {probe.rows}"),
        (long_narrow, long, "in bfloat16 it does {:.2f} times the arithmetic of float32"),
    ):
        if cost > SAME * least:
            raise Fault("cost", f"{words.format(cost / least)} per sequence (at most {SAME})")


def _slope(costs: dict[int, Cost], attribute: str) -> float:
    """The largest exponent between neighbours."""
    return max(
        math.log(max(getattr(costs[b], attribute), 1.0) / max(getattr(costs[a], attribute), 1.0)) / math.log(b / a)
        for a, b in pairwise(sorted(costs))
    )


def _judge(costs: dict[int, Cost], settings: GateSettings, what: str = "forward pass") -> None:
    for attribute, words in (
        ("flops", "FLOPs"),
        ("work", "arithmetic and moved elements"),
        ("largest_bytes", "the largest intermediate"),
        ("peak_bytes", "memory"),
    ):
        exponent = _slope(costs, attribute)
        hint = "" if what == "forward pass" else ": what a loop reads by index, give it as xs (else it costs all of it)"
        if exponent > settings.max_exponent:
            raise Fault(
                "cost",
                f"{words} of the {what} grow with exponent {exponent:.2f} in time (at most {settings.max_exponent}) "
                f"between times {min(costs)} and {max(costs)}{hint}",
            )
