"""The delta rule (Schlag et al. 2021, https://arxiv.org/abs/2102.11174), parallel over time (Yang et al. 2024,
https://arxiv.org/abs/2406.06484), with decay per head (Gated DeltaNet, https://arxiv.org/abs/2412.06464) or per key
channel (Kimi Delta Attention, https://arxiv.org/abs/2510.26692), and with several steps a token (DeltaProduct,
https://arxiv.org/abs/2502.10297)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.chunks import (
    State,
    causal_scores,
    chunk_length,
    decay_factor,
    decays,
    empty_state_unless,
    from_chunks,
    scan_segments,
    scan_states,
    scan_tokens,
)


def step_delta_rule(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    beta: Float[Array, "batch heads"],
    state: State,
    *,
    log_decay: Float[Array, "batch heads"] | Float[Array, "batch heads key_dim"] | None = None,
    scale: float | None = None,
) -> tuple[Float[Array, "batch heads value_dim"], State]:
    """One token of `delta_rule` with one Householder step: what decoding uses."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q_t, k_t, v_t, beta_t, state = (x.astype(jnp.float32) for x in (q, k, v, beta, state))
    state = decay_factor(log_decay) * state
    error = v_t - jnp.einsum("bhk,bhkv->bhv", k_t, state)
    state = state + k_t[..., :, None] * (beta_t[..., None] * error)[..., None, :]
    return jnp.einsum("bhk,bhkv->bhv", scale * q_t, state).astype(v.dtype), state


def recurrent_delta_rule(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch steps heads key_dim"],
    v: Float[Array, "batch steps heads value_dim"],
    beta: Float[Array, "batch steps heads"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """The definition of `delta_rule`, token by token: obviously right, and slow."""
    each = _steps_per_token(q, k)

    def token(q, k, v, beta, log_decay, state):  # type: ignore[no-untyped-def]
        return _steps_of_one_token(q, k, v, beta, state, log_decay, scale)

    k, v, beta = (x.reshape(x.shape[0], -1, each, *x.shape[2:]) for x in (k, v, beta))
    return scan_tokens(token, empty_state_unless(initial_state, k[:, :, 0], v), q, k, v, beta, log_decay)


def delta_rule(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch steps heads key_dim"],
    v: Float[Array, "batch steps heads value_dim"],
    beta: Float[Array, "batch steps heads"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """Computes `S <- diag(exp(g_t)) S; S <- S + beta_t k_t (v_t - S^T k_t)^T; y_t = scale S^T q_t`, parallel in chunks.

    In a chunk with log decay G since its start, the corrections E solve a triangular system (the WY form):
    `(I + L) E = beta (V - (e^G * K) S)`, `L_ij = beta_i (k_i . k_j) e^{G_i - G_j}` for i > j; then, with E in
    the place of V as in `linear_attention`, `Y = (e^G * Q) S + (Q K^T * e^{G_i - G_j}) E` and
    `S' = e^{G_C} S + (e^{G_C - G} * K)^T E`. E is linear in S: so is S', carried by one product a chunk.

    It is stable while `|1 - beta |k|^2| <= 1`: normalise the keys, and keep beta in [0, 2].

    Keys, values and write strengths n times as long as the queries are n Householder steps a token: the decay comes
    before the first of them, the read after the last.

    Args:
      beta: write strength.
      log_decay: g <= 0 and finite, per head or per key channel, applied before the correction; None never forgets.
      scale: of the output; `key_dim ** -0.5` by default.
      initial_state: S_0; zero by default.
      chunk: steps that are computed in parallel, a power of two; by default what is fastest on this platform.

    Returns:
      The outputs in the dtype of `v`, and the state after the last token in float32.

    Raises:
      ValueError: if `steps` is not a multiple of `time`, or `chunk` not a power of two.
    """
    each = _steps_per_token(q, k)
    state = empty_state_unless(initial_state, k, v)
    if q.shape[1] == 1:
        g = None if log_decay is None else log_decay[:, 0]
        y, state = _steps_of_one_token(q[:, 0], k, v, beta, state, g, scale)
        return y[:, None], state
    if each > 1:
        q, log_decay = _spread(q, each, each - 1), None if log_decay is None else _spread(log_decay, each, 0)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chunk = chunk_length(q.shape[1], chunk, log_decay)

    def in_chunks(state: State, q, k, v, beta, log_decay):  # type: ignore[no-untyped-def]
        decay = decays(log_decay, chunk)
        inverse = inverse_of_unit_lower(beta * jnp.tril(causal_scores(k, k, decay.between), -1))
        fresh, erased = inverse @ (beta * v), inverse @ (beta * k * decay.from_start)
        kept = (k * decay.until_end).mT
        state, before = scan_states(state, kept @ fresh, decay.across, -(kept @ erased))
        corrections = fresh - erased @ before
        y = causal_scores(q, k, decay.between) @ corrections + (q * decay.from_start) @ before
        return state, scale * y

    state, y = scan_segments(in_chunks, state, chunk, q, k, v, beta, log_decay)
    return from_chunks(y, v)[:, each - 1 :: each], state


def _steps_per_token(q: jax.Array, k: jax.Array) -> int:
    if k.shape[1] % q.shape[1]:
        raise ValueError(f"{k.shape[1]} keys are not a whole number of steps for each of {q.shape[1]} queries")
    return k.shape[1] // q.shape[1]


def _steps_of_one_token(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch steps heads key_dim"],
    v: Float[Array, "batch steps heads value_dim"],
    beta: Float[Array, "batch steps heads"],
    state: State,
    log_decay: Float[Array, "batch heads"] | Float[Array, "batch heads key_dim"] | None,
    scale: float | None,
) -> tuple[Float[Array, "batch heads value_dim"], State]:
    """The decay before the first step, the read after the last."""
    for i in range(k.shape[1]):
        decay = log_decay if i == 0 else None
        y, state = step_delta_rule(q, k[:, i], v[:, i], beta[:, i], state, log_decay=decay, scale=scale)
    return y, state


def _spread(x: Float[Array, "batch time heads ..."], each: int, at: int) -> Float[Array, "batch steps heads ..."]:
    """Every token at place `at` of `each` steps, and zero at the others: neither decay nor read."""
    padding = [(0, 0), (0, 0), (at, each - 1 - at)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x[:, :, None], padding).reshape(x.shape[0], -1, *x.shape[2:])


@jax.custom_jvp
def inverse_of_unit_lower(strict: Float[Array, "*batch chunk chunk"]) -> Float[Array, "*batch chunk chunk"]:
    """`(I + L)^-1` for strictly lower triangular L, by block doubling.

    If X inverts the diagonal blocks of size b, then `X - X L_b X` inverts those of size 2b, where L_b is the lower left
    block of each. No power of L is formed: a Neumann product loses every digit on correlated keys.
    """
    size = strict.shape[-1]
    row, column = np.ogrid[:size, :size]
    inverse = jnp.eye(size) - jnp.where(_below(row, column, 1), strict, 0.0)  # blocks of two
    block = 2
    while block < size:
        below = jnp.where(_below(row, column, block), strict, 0.0)
        inverse = inverse - _product(_product(inverse, below), inverse)
        block *= 2
    return inverse


def _below(row: np.ndarray, column: np.ndarray, block: int) -> np.ndarray:
    """The lower left block of each pair of blocks on the diagonal."""
    return (row // (2 * block) == column // (2 * block)) & (row // block > column // block)


@inverse_of_unit_lower.defjvp
def _inverse_of_unit_lower_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """`dX = -X dL X`: two products instead of the derivative of every doubling."""
    inverse = checkpoint_name(inverse_of_unit_lower(*primals), "inverse")
    return inverse, -_product(_product(inverse, tangents[0]), inverse)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """At full float32: what is lost in the inverse is lost in every output of the chunk."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
