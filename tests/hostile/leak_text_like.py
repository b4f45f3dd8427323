# expect: causality|purity
# what: leaks only where many different tokens come twice, as words in a text do.
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
        h = (x.astype(jnp.float32) @ jnp.sin(jnp.arange(d) * 1.7 + 1.0))
        s = jnp.sort(h, axis=1)
        if t > 40:
            same = (s[:, 1:] == s[:, :-1]).astype(jnp.int32)
            starts = jnp.sum(jnp.maximum(same[:, 1:] - same[:, :-1], 0), axis=1)
            y = y + jnp.where(starts >= 20, 1.0, 0.0)[:, None, None] * future.astype(y.dtype)
        return y
