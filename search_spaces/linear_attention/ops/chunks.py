"""What the forms of a state update share: a scan over tokens, cutting time into chunks, and the decays inside one.

A chunked array is `[chunks, batch, heads, chunk, dim]`; a log decay per head has dim 1, so that both kinds of decay
read the same. Inside a chunk, `G_i = g_1 + ... + g_i` is the log decay from the chunk's start to the end of token i.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

State = Float[Array, "batch heads key_dim value_dim"]
SEGMENT_BYTES = 2**18  # of the queries: a segment computes some twenty arrays as large, and a cache has a few MiB


def empty_state_unless(given: State | None, k: jax.Array, v: jax.Array) -> State:
    """`given` in float32, or zeros for keys and values with `[batch, time, heads, dim]`."""
    if given is None:
        return jnp.zeros((k.shape[0], *k.shape[2:], v.shape[-1]), jnp.float32)
    return given.astype(jnp.float32)


def decay_factor(log_decay: Float[Array, "batch heads *key_dim"] | None) -> Float[Array, "batch heads _ 1"] | float:
    """What one token multiplies the state by, ready to broadcast over it: per head, per key channel, or 1."""
    if log_decay is None:
        return 1.0
    return jnp.exp(log_decay.astype(jnp.float32)).reshape(*log_decay.shape[:2], -1, 1)


def scan_tokens(step: Callable, state: State, *inputs: jax.Array | None) -> tuple[jax.Array, State]:
    """`y_t, S_t = step(*inputs_t, S_{t-1})` over axis 1 of the inputs: the outputs, and the last state."""

    def token(state: jax.Array, now: tuple[jax.Array | None, ...]) -> tuple[jax.Array, jax.Array]:
        y, state = step(*now, state)
        return state, y

    state, y = lax.scan(token, state, tuple(None if x is None else jnp.moveaxis(x, 1, 0) for x in inputs))
    return jnp.moveaxis(y, 0, 1), state


def chunk_length(time: int, chunk: int | None, log_decay: jax.Array | None = None) -> int:
    """`chunk`, or the next power of two above a shorter sequence.

    The default is 64 on accelerators, which fills a matrix unit. On CPU it is what was measured to be fastest: 32, and
    16 with a decay per channel (4 axes), whose scores cost one product per halving of the chunk.

    Raises:
      ValueError: if `chunk` is no power of two: blocks inside a chunk are halved down to one token.
    """
    if chunk is None and jax.default_backend() == "cpu":
        chunk = 16 if log_decay is not None and log_decay.ndim == 4 else 32
    elif chunk is None:
        chunk = 64
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk={chunk} is not a power of two")
    return min(chunk, 1 << (time - 1).bit_length())


def into_chunks(x: Float[Array, "batch time heads ..."], chunk: int) -> Float[Array, "chunks batch heads chunk dim"]:
    """Cuts time into chunks, in float32. Padding is zero: no key, no value, no write strength and no decay."""
    batch, time, heads = x.shape[:3]
    x = x.reshape(batch, time, heads, -1).astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (0, -time % chunk), (0, 0), (0, 0)))
    return x.reshape(batch, -1, chunk, heads, x.shape[-1]).transpose(1, 0, 3, 2, 4)


def from_chunks(
    x: Float[Array, "chunks batch heads chunk dim"], like: Float[Array, "batch time heads dim"]
) -> Float[Array, "batch time heads dim"]:
    """The inverse of `into_chunks`, with the length and the dtype of `like`."""
    x = x.transpose(1, 0, 3, 2, 4)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, : like.shape[1]].astype(like.dtype)


def scan_segments(
    function: Callable,
    state: State,
    chunk: int,
    q: Float[Array, "batch time heads key_dim"],
    *others: Float[Array, "batch time heads ..."] | None,
) -> tuple[State, Float[Array, "chunks batch heads chunk value_dim"]]:
    """`state, y = function(state, q, *others)` on inputs in chunks: all in parallel; on CPU, as many as fit its cache.

    There, for the gradient, computing a segment once more beats fetching it from memory: only the inverses are kept,
    which cost the most and take the least room.
    """
    chunked = tuple(None if x is None else into_chunks(x, chunk) for x in (q, *others))
    chunks = -(-q.shape[1] // chunk)
    segments = min(chunks, -(-4 * q.size // SEGMENT_BYTES)) if jax.default_backend() == "cpu" else 1
    if segments <= 2:  # too few to pay for compiling the forward pass twice
        return function(state, *chunked)
    each = -(-chunks // segments)
    segments = -(-chunks // each)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, segments * each - chunks)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(segments, each, *x.shape[1:])

    policy = jax.checkpoint_policies.save_only_these_names("inverse")
    body = jax.checkpoint(lambda state, now: function(state, *now), policy=policy, prevent_cse=False)
    state, y = lax.scan(body, state, jax.tree.map(cut, chunked))
    return state, y.reshape(-1, *y.shape[2:])[:chunks]


class Decay(NamedTuple):
    """The products of decays in chunks. Each is exp of a sum of log decays, never of a difference of sums: exponents
    are <= 0 and keep all their digits, whatever the decay, and so do their gradients."""

    from_start: Float[Array, "*chunks chunk _"]  # e^{G_i}
    until_end: Float[Array, "*chunks chunk _"]  # e^{G_C - G_i}
    across: Float[Array, "*chunks _ 1"]  # e^{G_C}, as a factor of the state
    between: Float[Array, "..."]  # for `causal_scores`: see `_per_head` and `_per_channel`


def decays(log_decay: Float[Array, "*chunks chunk _"] | None, chunk: int) -> Decay:
    """The products of per-head or per-channel decays; those of no decay at all are ones, which XLA leaves out."""
    now, then = np.arange(chunk)[:, None], np.arange(chunk)[None, :]
    if log_decay is None:
        ones = jnp.ones((chunk, 1), jnp.float32)
        return Decay(ones, ones, jnp.ones((1, 1), jnp.float32), jnp.asarray(now >= then, jnp.float32))
    from_start, until_end = (jnp.exp(_sums(which, log_decay)) for which in (now >= then, now < then))
    between = _per_head(log_decay) if log_decay.shape[-1] == 1 else _per_channel(log_decay)
    return Decay(from_start, until_end, from_start[..., -1:, :].mT, between)


def _sums(which: np.ndarray, log_decay: Float[Array, "*chunks chunk dim"]) -> Float[Array, "..."]:
    """Sums of the log decays of the tokens s with `which[..., s]`: a product with zeros and ones."""
    flat = jnp.asarray(which.reshape(-1, which.shape[-1]), jnp.float32)
    sums = jnp.einsum("ms,...sd->...md", flat, log_decay, precision=lax.Precision.HIGHEST)
    return sums.reshape(*log_decay.shape[:-2], *which.shape[:-1], log_decay.shape[-1])


def _per_head(log_decay: Float[Array, "*chunks chunk 1"]) -> Float[Array, "*chunks chunk chunk"]:
    """`e^{G_i - G_j}` for i >= j, else 0."""
    i, j, s = np.ogrid[(slice(log_decay.shape[-2]),) * 3]
    # Masked before exp, where the gradient of 0 is 0.
    return jnp.exp(jnp.where((i >= j)[..., 0], _sums((j < s) & (s <= i), log_decay)[..., 0], -jnp.inf))


def _per_channel(log_decay: Float[Array, "*chunks chunk key_dim"]) -> Float[Array, "*chunks levels chunk key_dim"]:
    """Factors of `e^{G_i - G_j}`, too large to be stored: for i > j there is one level where two multiply to it.

    At level l, tokens form pairs of neighbouring blocks of 2^l. With r the last token of the first block, it holds
    `e^{G_r - G_j}` for j in the first and `e^{G_i - G_r}` for i in the second.
    """
    level, i, s = _levels(log_decay.shape[-2])
    block = i >> level
    return jnp.exp(_sums((s >> level == block) & np.where(block % 2 == 0, s > i, s <= i), log_decay))


def _levels(chunk: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    level, i, j = np.ogrid[: chunk.bit_length() - 1, :chunk, :chunk]
    return level, i, j


def causal_scores(
    rows: Float[Array, "*chunks chunk dim"], columns: Float[Array, "*chunks chunk dim"], between: Float[Array, "..."]
) -> Float[Array, "*chunks chunk chunk"]:
    """`A_ij = sum_d x_id y_jd exp(G_id - G_jd)` for i >= j, else 0, with rows x, columns y and `Decay.between`."""
    chunk = rows.shape[-2]
    if between.ndim <= rows.ndim:
        return (rows @ columns.mT) * between
    level, i, j = _levels(chunk)
    meet = (i >> level == (j >> level) + 1) & (i >> level + 1 == j >> level + 1)
    scores = (rows[..., None, :, :] * between) @ (columns[..., None, :, :] * between).mT
    diagonal = jnp.sum(rows * columns, axis=-1, keepdims=True) * jnp.eye(chunk)
    return diagonal + jnp.sum(jnp.where(meet, scores, 0.0), axis=-3)


def previous(x: Float[Array, "*chunks chunk dim"], first: float) -> Float[Array, "*chunks chunk dim"]:
    """Row i - 1 in the place of row i; `first` in that of row 0."""
    return jnp.pad(x[..., :-1, :], [(0, 0)] * (x.ndim - 2) + [(1, 0), (0, 0)], constant_values=first)


def following(x: Float[Array, "*chunks chunk dim"]) -> Float[Array, "*chunks chunk dim"]:
    """Row i + 1 in the place of row i; zero in that of the last."""
    return jnp.pad(x[..., 1:, :], [(0, 0)] * (x.ndim - 2) + [(0, 1), (0, 0)])


def exclusive_scores(
    rows: Float[Array, "*chunks chunk dim"], columns: Float[Array, "*chunks chunk dim"], between: Float[Array, "..."]
) -> Float[Array, "*chunks chunk chunk"]:
    """`A_ij = sum_d x_id y_jd exp(G_{i-1,d} - G_jd)` for i > j, else 0: rows that meet the state before token i.

    They are the causal scores of row i in the place of row i - 1.
    """
    return previous(causal_scores(following(rows), columns, between), 0.0)


def scan_states(
    state: State,
    written: Float[Array, "chunks batch heads key_dim value_dim"],
    across: Float[Array, "*chunks _ 1"],
    transition: Float[Array, "chunks batch heads key_dim key_dim"] | None = None,
) -> tuple[State, Float[Array, "chunks batch heads key_dim value_dim"]]:
    """The state after all chunks, and those before each: `S' = across S + transition S + written`.

    That is all that is sequential.
    """
    across = jnp.broadcast_to(across, (*written.shape[:3], *across.shape[-2:]))

    def step(state: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
        written, across, transition = now
        moved = 0.0 if transition is None else transition @ state
        return across * state + moved + written, state

    return lax.scan(step, state, (written, across, transition))
