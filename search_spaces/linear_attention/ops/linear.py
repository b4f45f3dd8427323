"""Linear attention, without decay (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236), with one per head
(RetNet, Mamba2), with one per key channel (GLA, Yang et al. 2023, https://arxiv.org/abs/2312.06635), and with a bonus
for the current token (RWKV6, Peng et al. 2024, https://arxiv.org/abs/2404.05892)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.chunks import (
    State,
    causal_scores,
    chunk_length,
    decay_factor,
    decays,
    empty_state_unless,
    exclusive_scores,
    from_chunks,
    previous,
    scan_segments,
    scan_states,
    scan_tokens,
)


def step_linear_attention(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    state: State,
    *,
    log_decay: Float[Array, "batch heads"] | Float[Array, "batch heads key_dim"] | None = None,
    bonus: Float[Array, "heads key_dim"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Array, "batch heads value_dim"], State]:
    """One token of `linear_attention`: what decoding uses."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q_t, k_t, v_t, state = (x.astype(jnp.float32) for x in (q, k, v, state))
    written = k_t[..., :, None] * v_t[..., None, :]
    after = decay_factor(log_decay) * state + written
    read = after if bonus is None else state + bonus.astype(jnp.float32)[..., None] * written
    return jnp.einsum("bhk,bhkv->bhv", scale * q_t, read).astype(v.dtype), after


def recurrent_linear_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    bonus: Float[Array, "heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """The definition of `linear_attention`, token by token: obviously right, and slow."""

    def step(q, k, v, log_decay, state):  # type: ignore[no-untyped-def]
        return step_linear_attention(q, k, v, state, log_decay=log_decay, bonus=bonus, scale=scale)

    return scan_tokens(step, empty_state_unless(initial_state, k, v), q, k, v, log_decay)


def linear_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    bonus: Float[Array, "heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """Computes `S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T` and `y_t = scale S_t^T q_t`, in parallel inside chunks.

    With S the state before a chunk and G the log decay since its start,
    `Y = (e^G * Q) S + (Q K^T * e^{G_i - G_j}) V` and `S' = e^{G_C} S + (e^{G_C - G} * K)^T V`.

    With a bonus u the read comes before the decay and the write, `y_t = scale (S_{t-1} + diag(u) k_t v_t^T)^T q_t`:
    G_{i-1} takes the place of G_i in Y, and the current token joins by itself.

    Args:
      log_decay: g <= 0 and finite, per head or per key channel; None never forgets.
      bonus: u, the weight of the current token, per head and key channel; None reads the state after the write.
      scale: of the output; `key_dim ** -0.5` by default.
      initial_state: S_0; zero by default.
      chunk: tokens that are computed in parallel, a power of two; by default what is fastest on this platform.

    Returns:
      The outputs in the dtype of `v`, and the state after the last token in float32.

    Raises:
      ValueError: if `chunk` is not a power of two.
    """
    state = empty_state_unless(initial_state, k, v)
    if q.shape[1] == 1:
        g = None if log_decay is None else log_decay[:, 0]
        y, state = step_linear_attention(q[:, 0], k[:, 0], v[:, 0], state, log_decay=g, bonus=bonus, scale=scale)
        return y[:, None], state
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chunk = chunk_length(q.shape[1], chunk, log_decay)
    u = None if bonus is None else bonus.astype(jnp.float32)[:, None]

    def in_chunks(state: State, q, k, v, log_decay):  # type: ignore[no-untyped-def]
        decay = decays(log_decay, chunk)
        if u is None:
            within = causal_scores(q, k, decay.between) @ v
            queries = q * decay.from_start
        else:
            within = exclusive_scores(q, k, decay.between) @ v + jnp.sum(q * u * k, axis=-1, keepdims=True) * v
            queries = q * previous(decay.from_start, 1.0)
        state, before = scan_states(state, (k * decay.until_end).mT @ v, decay.across)
        return state, scale * (within + queries @ before)

    state, y = scan_segments(in_chunks, state, chunk, q, k, v, log_decay)
    return from_chunks(y, v), state
