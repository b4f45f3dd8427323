"""Sliding-window attention (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150): softmax with a memory that ends."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.rotary import rotary as rotate

WindowState = tuple[
    Float[Array, "batch past heads key_dim"], Float[Array, "batch past heads value_dim"], Float[Array, "batch past"]
]


def sliding_window_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    window: int,
    scale: float | None = None,
    rotary: bool = True,
    initial_state: WindowState | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], WindowState]:
    """Computes `y_t = sum_{t-window<s<=t} softmax_s(scale q_t . R^(s-t) k_s) v_s`, linear in time.

    A block of `window` queries sees its own keys and those of the block before. R is the rotation of `ops.rotary`, or
    1. Positions count from the first key that a block sees: neither precision nor state knows how long it has run.

    Args:
      window: tokens that a query sees, itself included.
      scale: of the scores; `key_dim ** -0.5` by default.
      rotary: whether the scores know how far back a key is.
      initial_state: as `window_state`; empty by default.

    Returns:
      The outputs in the dtype of `v`; and the last `window - 1` keys and values in float32, not rotated, with a mask
      that is 1 where there was a token.
    """
    batch, time, heads, key_dim = q.shape
    scale = key_dim**-0.5 if scale is None else scale
    if initial_state is None:
        initial_state = window_state(batch, heads, key_dim, v.shape[-1], window)
    present = k.astype(jnp.float32), v.astype(jnp.float32), jnp.ones((batch, time), jnp.float32)
    seen = jax.tree.map(lambda past, new: jnp.concatenate([past, new], axis=1), initial_state, present)

    block = min(window, time)
    queries = _into_blocks(scale * q.astype(jnp.float32), block)
    keys, values, valid = (_with_past(x, block, window) for x in seen)
    y = _attend(queries, keys, values, valid, rotary)
    y = y.reshape(batch, -1, *y.shape[3:])[:, :time].astype(v.dtype)
    return y, jax.tree.map(lambda x: x[:, time:], seen)


def step_sliding_window_attention(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    state: WindowState,
    *,
    scale: float | None = None,
    rotary: bool = True,
) -> tuple[Float[Array, "batch heads value_dim"], WindowState]:
    """One token of `sliding_window_attention`; the state knows the window."""
    q, k, v = (x[:, None] for x in (q, k, v))
    window = state[0].shape[1] + 1
    y, state = sliding_window_attention(q, k, v, window=window, scale=scale, rotary=rotary, initial_state=state)
    return y[:, 0], state


def window_state(batch: int, heads: int, key_dim: int, value_dim: int, window: int) -> WindowState:
    """No past: keys and values that no query attends to."""
    past = (batch, window - 1)
    return jnp.zeros((*past, heads, key_dim)), jnp.zeros((*past, heads, value_dim)), jnp.zeros(past)


def _attend(
    q: Float[Array, "batch blocks block heads key_dim"],
    k: Float[Array, "batch blocks seen heads key_dim"],
    v: Float[Array, "batch blocks seen heads value_dim"],
    valid: Float[Array, "batch blocks seen"],
    rotary: bool,
) -> Float[Array, "batch blocks block heads value_dim"]:
    """Softmax attention inside each block: of the `seen` keys, query i sees the `window` that end with its own."""
    window = k.shape[2] - q.shape[2]
    if rotary:
        q, k = _rotate_blocks(q, window), _rotate_blocks(k, 0)
    distance = window + jnp.arange(q.shape[2])[:, None] - jnp.arange(k.shape[2])
    band = (distance >= 0) & (distance < window)
    # No row is empty: less than a window is padded, so that even a padded query sees the last token.
    mask = band[None, None, None] & (valid > 0)[:, :, None, None]
    scores = jnp.where(mask, jnp.einsum("bnihd,bnjhd->bnhij", q, k), -jnp.inf)
    return jnp.einsum("bnhij,bnjhd->bnihd", jax.nn.softmax(scores, axis=-1), v)


def _rotate_blocks(
    x: Float[Array, "batch blocks block heads dim"], start: int
) -> Float[Array, "batch blocks block heads dim"]:
    return rotate(x.reshape(-1, *x.shape[2:]), start).reshape(x.shape)


def _into_blocks(x: Float[Array, "batch time ..."], block: int) -> Float[Array, "batch blocks block ..."]:
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % block)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(x.shape[0], -1, block, *x.shape[2:])


def _with_past(
    x: Float[Array, "batch seen ..."], block: int, window: int
) -> Float[Array, "batch blocks block_and_window ..."]:
    """Each block of tokens after the `window` before it, of which its first query sees all but the first.

    There is one block, or `block` is the window.
    """
    x = jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2))  # before the `window - 1` tokens of the state
    if x.shape[1] == window + block:
        return x[:, None]
    x = _into_blocks(x, block)
    return jnp.concatenate([x[:, :-1], x[:, 1:]], axis=2)
