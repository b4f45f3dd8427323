"""The delta rule (Schlag et al. 2021, https://arxiv.org/abs/2102.11174), parallel over time (Yang et al. 2024,
https://arxiv.org/abs/2406.06484), with decay per head (Gated DeltaNet, https://arxiv.org/abs/2412.06464) or per key
channel (Kimi Delta Attention, https://arxiv.org/abs/2510.26692)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.chunks import causal_scores, chunk_length, cumulative, from_chunks, into_chunks
from search_spaces.linear_attention.ops.linear import State, decay_like, state_like


def recurrent_delta_rule(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    beta: Float[Array, "batch time heads"],
    *,
    log_decay: Float[Array, "batch time heads"] | Float[Array, "batch time heads key_dim"] | None = None,
    scale: float | None = None,
    initial_state: State | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], State]:
    """The definition of `delta_rule`, token by token: obviously right, and slow."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def token(state: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q_t, k_t, v_t, beta_t, decay_t = now
        state = decay_t[..., None] * state
        error = v_t - jnp.einsum("bhk,bhkv->bhv", k_t, state)
        state = state + k_t[..., :, None] * (beta_t[..., None] * error)[..., None, :]
        return state, jnp.einsum("bhk,bhkv->bhv", q_t * scale, state)

    decay = jnp.exp(decay_like(k, log_decay))
    over_time = [jnp.moveaxis(x.astype(jnp.float32), 1, 0) for x in (q, k, v, beta, decay)]
    state, y = lax.scan(token, state_like(k, v, initial_state), tuple(over_time))
    return jnp.moveaxis(y, 0, 1).astype(v.dtype), state


def delta_rule(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    beta: Float[Array, "batch time heads"],
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

    Args:
      beta: write strength.
      log_decay: g <= 0, per head or per key channel, applied before the correction; None never forgets.
      scale: of the output; `key_dim ** -0.5` by default.
      initial_state: S_0; zero by default.
      chunk: tokens that are computed in parallel, a power of two; by default what is fastest on this platform.

    Returns:
      The outputs in the dtype of `v`, and the state after the last token in float32.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chunk = chunk_length(q.shape[1], chunk)
    q_c, k_c, v_c, beta_c = (into_chunks(x, chunk) for x in (q, k, v, beta))
    q_c = scale * q_c
    total = None if log_decay is None else cumulative(into_chunks(log_decay, chunk))
    queries, keys, until_end, across = q_c, k_c, k_c, None
    if total is not None:
        last = total[..., -1:, :]
        queries, keys = q_c * jnp.exp(total), k_c * jnp.exp(total)
        until_end, across = k_c * jnp.exp(last - total), jnp.exp(last).mT

    inverse = inverse_of_unit_lower(beta_c * jnp.tril(causal_scores(k_c, k_c, total), -1))
    fresh, erase = inverse @ (beta_c * v_c), inverse @ (beta_c * keys)
    state, before = scan_affine(state_like(k, v, initial_state), until_end, erase, fresh, across)
    y = causal_scores(q_c, k_c, total) @ (fresh - erase @ before) + queries @ before
    return from_chunks(y, v), state


def scan_affine(
    state: State,
    keys: Float[Array, "chunks batch heads chunk key_dim"],
    erase: Float[Array, "chunks batch heads chunk key_dim"],
    fresh: Float[Array, "chunks batch heads chunk value_dim"],
    decay: Float[Array, "chunks batch heads _ 1"] | None,
) -> tuple[State, Float[Array, "chunks batch heads key_dim value_dim"]]:
    """The state after all chunks, and the states before each: `S' = decay S + keys^T (fresh - erase S)`."""

    def step(state: jax.Array, now: tuple[jax.Array, jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
        transition, written, decay = now
        return (state if decay is None else decay * state) - transition @ state + written, state

    return lax.scan(step, state, (keys.mT @ erase, keys.mT @ fresh, decay))


@jax.custom_jvp
def inverse_of_unit_lower(strict: Float[Array, "*batch chunk chunk"]) -> Float[Array, "*batch chunk chunk"]:
    """`(I + L)^-1` for strictly lower triangular L, by block doubling.

    If X inverts the diagonal blocks of size b, then `X - X L_b X` inverts those of size 2b, where L_b is the lower left
    block of each. No power of L is formed: a Neumann product loses every digit on correlated keys.
    """
    size = strict.shape[-1]
    row, column = jnp.arange(size)[:, None], jnp.arange(size)[None, :]
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=strict.dtype), strict.shape)
    block = 1
    while block < size:
        below = (row // (2 * block) == column // (2 * block)) & (row // block > column // block)
        inverse = inverse - _product(_product(inverse, jnp.where(below, strict, 0.0)), inverse)
        block *= 2
    return inverse


@inverse_of_unit_lower.defjvp
def _inverse_of_unit_lower_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """`dX = -X dL X`: two products instead of the derivative of every doubling."""
    inverse = inverse_of_unit_lower(*primals)
    return inverse, -_product(_product(inverse, tangents[0]), inverse)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """At full float32: what is lost in the inverse is lost in every output of the chunk."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
