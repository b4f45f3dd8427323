"""Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762): the quadratic reference from outside."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def softmax_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    scale: float | None = None,
) -> Float[Array, "batch time heads value_dim"]:
    """Computes `y_t = sum_{s<=t} softmax_s(scale q_t . k_s) v_s`, the softmax in float32."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("bihd,bjhd->bhij", q, k, preferred_element_type=jnp.float32) * scale
    causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhij,bjhd->bihd", weights, v.astype(jnp.float32)).astype(v.dtype)
