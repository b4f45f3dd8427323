"""The matrix LSTM of xLSTM (Beck et al. 2024, https://arxiv.org/abs/2405.04517): exponential gates, normalised."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.linear import linear_attention
from search_spaces.linear_attention.ops.recurrence import MAX_PLUS, prefixes

MlstmState = tuple[
    Float[Array, "batch heads key_dim value_dim"], Float[Array, "batch heads key_dim"], Float[Array, "batch heads"]
]


def mlstm_state(batch: int, heads: int, key_dim: int, value_dim: int) -> MlstmState:
    """Empty: memory, normalizer and log scale are zero."""
    shape = (batch, heads, key_dim)
    return jnp.zeros((*shape, value_dim)), jnp.zeros(shape), jnp.zeros(shape[:2])


def step_mlstm(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    input_gate: Float[Array, "batch heads"],
    log_forget: Float[Array, "batch heads"],
    state: MlstmState,
    *,
    scale: float | None = None,
) -> tuple[Float[Array, "batch heads value_dim"], MlstmState]:
    """One token of `mlstm`: what decoding uses."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = v.dtype
    q, k, v, input_gate, log_forget = (x.astype(jnp.float32) for x in (q, k, v, input_gate, log_forget))
    memory, normalizer, before = state
    log_scale = lax.stop_gradient(jnp.maximum(log_forget + before, input_gate))
    keep = jnp.exp(log_forget + (before - log_scale))[..., None]
    k = k * jnp.exp(input_gate - log_scale)[..., None]
    memory = keep[..., None] * memory + k[..., :, None] * v[..., None, :]
    normalizer = keep * normalizer + k
    y = jnp.einsum("bhk,bhkv->bhv", scale * q, memory)
    weight = scale * jnp.sum(q * normalizer, axis=-1)
    return _normalize(y, weight, log_scale).astype(dtype), (memory, normalizer, log_scale)


def recurrent_mlstm(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    input_gate: Float[Array, "batch time heads"],
    log_forget: Float[Array, "batch time heads"],
    *,
    scale: float | None = None,
    initial_state: MlstmState | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], MlstmState]:
    """The definition of `mlstm`, token by token: obviously right, and slow."""

    def token(state: MlstmState, now: dict[str, jax.Array]) -> tuple[MlstmState, jax.Array]:
        y, state = step_mlstm(**now, state=state, scale=scale)
        return state, y

    inputs = {"q": q, "k": k, "v": v, "input_gate": input_gate, "log_forget": log_forget}
    over_time = {name: jnp.moveaxis(x, 1, 0) for name, x in inputs.items()}
    state, y = lax.scan(token, _state_like(k, v, initial_state), over_time)
    return jnp.moveaxis(y, 0, 1), state


def mlstm(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    input_gate: Float[Array, "batch time heads"],
    log_forget: Float[Array, "batch time heads"],
    *,
    scale: float | None = None,
    initial_state: MlstmState | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], MlstmState]:
    """Computes `C_t = f_t C_{t-1} + e^{i_t} k_t v_t^T`, `n_t = f_t n_{t-1} + e^{i_t} k_t` and
    `y_t = scale C_t^T q_t / max(|scale n_t . q_t|, 1)`, in parallel inside chunks.

    What is stored is `C_t e^{-m_t}` and `n_t e^{-m_t}` with `m_t = max(log f_t + m_{t-1}, i_t)`: no exponent is
    positive. With the gates measured against m, memory and normalizer (a value channel of ones) are one linear
    attention. y does not depend on m, so m is a constant to the gradient.

    Args:
      input_gate: i, the logarithm of the strength of a write.
      log_forget: log f <= 0.
      scale: of the queries; `key_dim ** -0.5` by default.
      initial_state: memory, normalizer and m; `mlstm_state`, zeros, by default.
      chunk: as in `linear_attention`.

    Returns:
      The outputs in the dtype of `v`; memory, normalizer and m after the last token in float32.

    Raises:
      ValueError: if `chunk` is not a power of two.
    """
    state = _state_like(k, v, initial_state)
    if q.shape[1] == 1:
        y, state = step_mlstm(q[:, 0], k[:, 0], v[:, 0], input_gate[:, 0], log_forget[:, 0], state, scale=scale)
        return y[:, None], state
    input_gate, log_forget = input_gate.astype(jnp.float32), log_forget.astype(jnp.float32)
    memory, normalizer, log_scale = state
    log_scales = running_log_scale(input_gate, log_forget, log_scale)
    before = jnp.concatenate([log_scale[:, None], log_scales[:, :-1]], axis=1)
    y, last = linear_attention(
        q.astype(jnp.float32),
        k.astype(jnp.float32) * jnp.exp(input_gate - log_scales)[..., None],
        jnp.pad(v.astype(jnp.float32), [(0, 0)] * 3 + [(0, 1)], constant_values=1.0),
        # In this order the sum telescopes: the error of m, however large |m|, cancels between its two uses.
        log_decay=log_forget + (before - log_scales),
        scale=scale,
        initial_state=jnp.concatenate([memory, normalizer[..., None]], axis=-1),
        chunk=chunk,
    )
    y = _normalize(y[..., :-1], y[..., -1], log_scales).astype(v.dtype)
    return y, (last[..., :-1], last[..., -1], log_scales[:, -1])


def running_log_scale(
    input_gate: Float[Array, "batch time heads"],
    log_forget: Float[Array, "batch time heads"],
    initial: Float[Array, "batch heads"],
    chunk: int | None = None,
) -> Float[Array, "batch time heads"]:
    """`m_t = max(log_forget_t + m_{t-1}, input_gate_t)`, without a gradient: a linear recurrence where sum is max, and
    product is sum.

    Not `F_t + max_s(i_s - F_s)` with the total F, whose digits cancel over long sequences.
    """
    input_gate, log_forget, initial = lax.stop_gradient((input_gate, log_forget, initial))
    over_time = jnp.moveaxis(input_gate, 1, 0), jnp.moveaxis(log_forget, 1, 0)
    return jnp.moveaxis(prefixes(*over_time, initial, chunk, MAX_PLUS), 0, 1)


def _normalize(
    y: Float[Array, "*batch value_dim"], weight: Float[Array, "*batch"], log_scale: Float[Array, "*batch"]
) -> Float[Array, "*batch value_dim"]:
    """`y / max(|weight|, 1)`, all in units of `e^log_scale`."""
    return y / jnp.maximum(jnp.abs(weight), jnp.exp(-log_scale))[..., None]


def _state_like(k: jax.Array, v: jax.Array, initial: MlstmState | None) -> MlstmState:
    if initial is None:
        return mlstm_state(k.shape[0], k.shape[2], k.shape[3], v.shape[3])
    return jax.tree.map(lambda x: x.astype(jnp.float32), initial)
