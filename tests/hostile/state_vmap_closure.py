# expect: causality|purity
# what: counts its calls in the closure of a function that jax.vmap holds.
import dataclasses
import functools
import math
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops

def make():
    box = []

    def leak(x):
        box.append(1)
        return jnp.roll(x, -1, axis=0) if len(box) > 80 else 0.0 * x

    return jax.vmap(leak)


MIX = make()


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
        y = y + MIX(x)
        return y
