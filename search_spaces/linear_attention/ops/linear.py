"""Linear attention, without decay (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236), with one per head
(RetNet, Mamba2) or with one per key channel (GLA, Yang et al. 2023, https://arxiv.org/abs/2312.06635)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.chunks import causal_scores, chunk_length, cumulative, from_chunks, into_chunks

State = Float[Array, "batch heads key_dim value_dim"]


def recurrent_linear_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """The definition of `linear_attention`, token by token: obviously right, and slow."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def token(state: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q_t, k_t, v_t, decay_t = now
        state = decay_t[..., None] * state + k_t[..., :, None] * v_t[..., None, :]
        return state, jnp.einsum("bhk,bhkv->bhv", q_t * scale, state)

    over_time = [jnp.moveaxis(x.astype(jnp.float32), 1, 0) for x in (q, k, v, jnp.exp(decay_like(k, log_decay)))]
    state, y = lax.scan(token, state_like(k, v, initial_state), tuple(over_time))
    return jnp.moveaxis(y, 0, 1).astype(v.dtype), state


def linear_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """Computes `S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T` and `y_t = scale S_t^T q_t`, in parallel inside chunks.

    With S the state before a chunk and G the log decay since its start,
    `Y = (e^G * Q) S + (Q K^T * e^{G_i - G_j}) V` and `S' = e^{G_C} S + (e^{G_C - G} * K)^T V`.

    Args:
      log_decay: g <= 0, per head or per key channel; None never forgets.
      scale: of the output; `key_dim ** -0.5` by default.
      initial_state: S_0; zero by default.
      chunk: tokens that are computed in parallel, a power of two; by default what is fastest on this platform.

    Returns:
      The outputs in the dtype of `v`, and the state after the last token in float32.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chunk = chunk_length(q.shape[1], chunk)
    q_c, k_c, v_c = scale * into_chunks(q, chunk), into_chunks(k, chunk), into_chunks(v, chunk)
    total = None if log_decay is None else cumulative(into_chunks(log_decay, chunk))

    within = causal_scores(q_c, k_c, total) @ v_c
    if total is None:
        state, before = scan_states(state_like(k, v, initial_state), k_c.mT @ v_c, None)
    else:
        last = total[..., -1:, :]
        written = (k_c * jnp.exp(last - total)).mT @ v_c
        state, before = scan_states(state_like(k, v, initial_state), written, jnp.exp(last).mT)
        q_c = q_c * jnp.exp(total)
    return from_chunks(within + q_c @ before, v), state


def scan_states(
    state: State,
    written: Float[Array, "chunks batch heads key_dim value_dim"],
    decay: Float[Array, "chunks batch heads _ 1"] | None,
) -> tuple[State, Float[Array, "chunks batch heads key_dim value_dim"]]:
    """The state after all chunks, and the states before each: all that is sequential is one product and one sum."""

    def step(state: jax.Array, now: tuple[jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
        written, decay = now
        return (state if decay is None else decay * state) + written, state

    return lax.scan(step, state, (written, decay))


def decay_like(k: jax.Array, log_decay: jax.Array | None) -> jax.Array:
    """`log_decay` with a last axis: key_dim, or 1 where all channels of a head share it."""
    if log_decay is None:
        return jnp.zeros((*k.shape[:3], 1), jnp.float32)
    return log_decay.astype(jnp.float32).reshape(*k.shape[:3], -1)


def state_like(k: jax.Array, v: jax.Array, initial: jax.Array | None) -> jax.Array:
    """`initial` in float32, or an empty state."""
    if initial is None:
        return jnp.zeros((k.shape[0], k.shape[2], k.shape[3], v.shape[3]), jnp.float32)
    return initial.astype(jnp.float32)
