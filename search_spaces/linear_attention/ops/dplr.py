"""A diagonal plus a low-rank transition, the state update of RWKV7 (Peng et al. 2025, https://arxiv.org/abs/2503.14456)
and, with a decay per head, of Comba (Hu et al. 2025, https://arxiv.org/abs/2506.02475): what is erased, what is put in
its place and what is written are three different keys."""

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
from search_spaces.linear_attention.ops.delta import inverse_of_unit_lower


def step_dplr(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    a: Float[Array, "batch heads key_dim"],
    b: Float[Array, "batch heads key_dim"],
    state: State,
    *,
    log_decay: Float[Array, "batch heads"] | Float[Array, "batch heads key_dim"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Array, "batch heads value_dim"], State]:
    """One token of `dplr`: what decoding uses."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q_t, k_t, v_t, a_t, b_t, state = (x.astype(jnp.float32) for x in (q, k, v, a, b, state))
    recalled = jnp.einsum("bhk,bhkv->bhv", a_t, state)
    state = decay_factor(log_decay) * state + b_t[..., :, None] * recalled[..., None, :]
    state = state + k_t[..., :, None] * v_t[..., None, :]
    return jnp.einsum("bhk,bhkv->bhv", scale * q_t, state).astype(v.dtype), state


def recurrent_dplr(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    a: Float[Array, "batch time heads key_dim"],
    b: Float[Array, "batch time heads key_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """The definition of `dplr`, token by token: obviously right, and slow."""

    def step(q, k, v, a, b, log_decay, state):  # type: ignore[no-untyped-def]
        return step_dplr(q, k, v, a, b, state, log_decay=log_decay, scale=scale)

    return scan_tokens(step, empty_state_unless(initial_state, k, v), q, k, v, a, b, log_decay)


def dplr(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    a: Float[Array, "batch time heads key_dim"],
    b: Float[Array, "batch time heads key_dim"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """Computes `S_t = (diag(exp(g_t)) + b_t a_t^T) S_{t-1} + k_t v_t^T` and `y_t = scale S_t^T q_t`, in chunks.

    In a chunk with log decay G since its start, what is recalled, `u_i = S_{i-1}^T a_i`, solves a triangular system:
    `(I - A_ab) U = (e^{G_{i-1}} * A) S + A_ak V`, with the exclusive scores
    `A_xy,ij = sum_d x_id y_jd e^{G_{i-1,d} - G_jd}` for i > j. Then, with inclusive scores for the queries,
    `Y = (e^G * Q) S + A_qk V + A_qb U` and `S' = e^{G_C} S + (e^{G_C - G} * K)^T V + (e^{G_C - G} * B)^T U`.
    U is affine in S: so is S', carried by one product a chunk.

    It is stable while no `diag(exp(g_t)) + b_t a_t^T` stretches the state: with unit keys e, a = -e and b = beta e,
    beta in [0, 1 + min exp(g)]. RWKV7 takes a = -e, b = rate * e with a rate per channel; Comba takes
    a = -d k, b = beta k with a scalar d; `delta_rule` is a = -k exp(g), b = beta k. Both write beta v for v.

    Args:
      a: what is recalled from the state before its decay.
      b: where it is added.
      log_decay: g <= 0 and finite, per head or per key channel; None never forgets.
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
        y, state = step_dplr(q[:, 0], k[:, 0], v[:, 0], a[:, 0], b[:, 0], state, log_decay=g, scale=scale)
        return y[:, None], state
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chunk = chunk_length(q.shape[1], chunk, log_decay)

    def in_chunks(state: State, q, k, v, a, b, log_decay):  # type: ignore[no-untyped-def]
        decay = decays(log_decay, chunk)
        inverse = inverse_of_unit_lower(-exclusive_scores(a, b, decay.between))
        fresh = inverse @ (exclusive_scores(a, k, decay.between) @ v)
        recall = inverse @ (a * previous(decay.from_start, 1.0))
        kept, put = (k * decay.until_end).mT, (b * decay.until_end).mT
        state, before = scan_states(state, kept @ v + put @ fresh, decay.across, put @ recall)
        recalled = fresh + recall @ before
        y = causal_scores(q, k, decay.between) @ v + causal_scores(q, b, decay.between) @ recalled
        return state, scale * (y + (q * decay.from_start) @ before)

    state, y = scan_segments(in_chunks, state, chunk, q, k, v, a, b, log_decay)
    return from_chunks(y, v), state
