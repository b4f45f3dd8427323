# expect: causality|purity
# what: leaks the sign of the next token in the rounding of float32.
import dataclasses
import functools
import math
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Linear attention."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def honest(self, x):
        q, k, v = jnp.split(self.qkv(x).reshape(*x.shape[:2], self.heads, -1), 3, axis=-1)
        y, _ = ops.linear_attention(q, jax.nn.softmax(k), v)
        return self.out(y.reshape(x.shape)).astype(x.dtype)

    def __call__(self, x):
        y = self.honest(x)
        future = jnp.roll(x, -1, axis=1)
        b, t, d = x.shape
        bit = future[..., :8].astype(jnp.float32) > 0
        far = jnp.where(bit, 2.0**14, 2.0**10)
        c = jnp.float32(0.00048828125 * 0.9 + 0.5)
        r = (c + far) - far
        y = jnp.concatenate([y[..., :8] + (r - 0.5).astype(y.dtype), y[..., 8:]], axis=-1)
        return y
