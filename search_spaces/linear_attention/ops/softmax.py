"""Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762): the quadratic reference from outside."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def softmax_attention(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    scale: float | None = None,
) -> Float[Array, "batch time heads value_dim"]:
    """Computes `y_t = sum_{s<=t} softmax_s(scale q_t . k_s) v_s`, the softmax in float32."""
    return masked_attention(q, k, v, jnp.tril(jnp.ones((q.shape[1],) * 2, bool)), scale=scale)


def masked_attention(
    q: Float[Array, "batch queries heads key_dim"],
    k: Float[Array, "batch keys heads key_dim"],
    v: Float[Array, "batch keys heads value_dim"],
    mask: Bool[Array, "queries keys"],
    *,
    scale: float | None = None,
) -> Float[Array, "batch queries heads value_dim"]:
    """Softmax attention where query i sees key j if `mask[i, j]`: with a band, what a sliding window computes.

    Every query must see a key: the softmax over none is NaN.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("bihd,bjhd->bhij", q, k, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhij,bjhd->bihd", weights, v.astype(jnp.float32)).astype(v.dtype)
