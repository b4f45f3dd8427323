"""Elementwise linear recurrences, one number of state a channel: HGRN (Qin et al. 2023,
https://arxiv.org/abs/2311.04823), Griffin's RG-LRU (De et al. 2024, https://arxiv.org/abs/2402.19427) and minGRU (Feng
et al. 2024, https://arxiv.org/abs/2410.01201)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class Semiring(NamedTuple):
    """What "sum" and "product" mean in `h_t = a_t h_{t-1} + x_t`: the latter distributes over the former."""

    add: Callable[[jax.Array, jax.Array], jax.Array]
    multiply: Callable[[jax.Array, jax.Array], jax.Array]
    zero: float
    one: float


NUMBERS = Semiring(jnp.add, jnp.multiply, 0.0, 1.0)
MAX_PLUS = Semiring(jnp.maximum, jnp.add, -jnp.inf, 0.0)


def step_linear_recurrence(
    x: Float[Array, "batch heads dim"],
    state: Float[Array, "batch heads dim"],
    *,
    log_decay: Float[Array, "batch heads dim"],
) -> tuple[Float[Array, "batch heads dim"], Float[Array, "batch heads dim"]]:
    """One token of `linear_recurrence`: what decoding uses."""
    h = jnp.exp(log_decay.astype(jnp.float32)) * state.astype(jnp.float32) + x.astype(jnp.float32)
    return h.astype(x.dtype), h


def recurrent_linear_recurrence(
    x: Float[Array, "batch time heads dim"],
    *,
    log_decay: Float[Array, "batch time heads dim"],
    initial_state: Float[Array, "batch heads dim"] | None = None,
) -> tuple[Float[Array, "batch time heads dim"], Float[Array, "batch heads dim"]]:
    """The definition of `linear_recurrence`, token by token."""

    def token(state: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        y, state = step_linear_recurrence(now[0], state, log_decay=now[1])
        return state, y

    over_time = jnp.moveaxis(x, 1, 0), jnp.moveaxis(log_decay, 1, 0)
    state, y = lax.scan(token, _state_like(x, initial_state), over_time)
    return jnp.moveaxis(y, 0, 1), state


def linear_recurrence(
    x: Float[Array, "batch time heads dim"],
    *,
    log_decay: Float[Array, "batch time heads dim"],
    initial_state: Float[Array, "batch heads dim"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads dim"], Float[Array, "batch heads dim"]]:
    """Computes `h_t = e^{g_t} h_{t-1} + x_t`, channel by channel; no exponent is positive.

    The gradient is the same recurrence from the end to the start: `l_t = dh_t + e^{g_{t+1}} l_{t+1}`, then `dx_t = l_t`
    and `d(e^{g_t}) = l_t h_{t-1}`, with nothing stored but h.

    Args:
      log_decay: g <= 0 and finite.
      initial_state: h_0; zero by default.
      chunk: tokens that are passed one by one in all chunks at once; by default what is fastest on this platform.

    Returns:
      h in the dtype of `x`, and the last one in float32.
    """
    state = _state_like(x, initial_state)
    if x.shape[1] == 1:
        y, state = step_linear_recurrence(x[:, 0], state, log_decay=log_decay[:, 0])
        return y[:, None], state
    decay = jnp.exp(jnp.moveaxis(log_decay, 1, 0).astype(jnp.float32))
    h = _sum_product(jnp.moveaxis(x, 1, 0).astype(jnp.float32), decay, state, chunk)
    return jnp.moveaxis(h, 0, 1).astype(x.dtype), h[-1]


def steps_in_a_chunk(time: int, chunk: int | None) -> int:
    """`chunk`, or what is fastest here.

    On an accelerator a step costs a kernel's launch, so few steps are best: about `2 sqrt(time)`. On CPU a step costs
    less than a second pass over the sequence: all tokens are one chunk, which is the recurrence itself.
    """
    if chunk is not None:
        return min(chunk, time)
    return time if jax.default_backend() == "cpu" else 1 << (time.bit_length() // 2)


def prefixes(
    x: Float[Array, "time ..."],
    a: Float[Array, "time ..."],
    state: Float[Array, "..."],
    chunk: int | None = None,
    semiring: Semiring = NUMBERS,
) -> Float[Array, "time ..."]:
    """All h_t of `h_t = a_t h_{t-1} + x_t`.

    Several chunks take about `2 chunk + time / chunk` steps: all are summed up at once, each from an empty state; then
    the states before each are found; then all run at once, each from its own.
    """
    time = x.shape[0]
    chunk = steps_in_a_chunk(time, chunk)
    if chunk == time:
        return _scan(semiring, state, x, a)
    x, a = _by_position(x, chunk, semiring.zero), _by_position(a, chunk, semiring.one)

    def summed_up(both: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
        (h, product), (x_t, a_t) = both, now
        return (semiring.add(semiring.multiply(a_t, h), x_t), semiring.multiply(a_t, product)), None

    empty = jnp.full_like(x[0], semiring.zero), jnp.full_like(x[0], semiring.one)
    (written, product), _ = lax.scan(summed_up, empty, (x, a))
    after = _scan(semiring, state, written, product)
    before = jnp.concatenate([state[None], after[:-1]])
    h = _scan(semiring, before, x, a)
    return h.swapaxes(0, 1).reshape(-1, *state.shape)[:time]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sum_product(x: jax.Array, a: jax.Array, state: jax.Array, chunk: int | None) -> jax.Array:
    return prefixes(x, a, state, chunk)


def _sum_product_forward(
    x: jax.Array, a: jax.Array, state: jax.Array, chunk: int | None
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    h = _sum_product(x, a, state, chunk)
    return h, (h, a, state)


def _sum_product_backward(
    chunk: int | None, kept: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    h, a, state = kept
    next_a = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    dx = _sum_product(cotangent[::-1], next_a[::-1], jnp.zeros_like(state), chunk)[::-1]
    return dx, dx * jnp.concatenate([state[None], h[:-1]]), dx[0] * a[0]


_sum_product.defvjp(_sum_product_forward, _sum_product_backward)


def _scan(semiring: Semiring, state: jax.Array, x: jax.Array, a: jax.Array) -> jax.Array:
    """The recurrence over the first axis."""

    def step(h: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h = semiring.add(semiring.multiply(now[1], h), now[0])
        return h, h

    return lax.scan(step, state, (x, a))[1]


def _by_position(x: Float[Array, "time ..."], chunk: int, fill: float) -> Float[Array, "chunk chunks ..."]:
    """Position i of every chunk at index i, so that a scan moves through all chunks at once."""
    x = jnp.pad(x, [(0, -x.shape[0] % chunk)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return x.reshape(-1, chunk, *x.shape[1:]).swapaxes(0, 1)


def _state_like(x: jax.Array, initial: jax.Array | None) -> jax.Array:
    if initial is None:
        return jnp.zeros((x.shape[0], *x.shape[2:]), jnp.float32)
    return initial.astype(jnp.float32)
