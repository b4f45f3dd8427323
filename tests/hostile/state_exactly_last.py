# expect: causality|purity
# what: leaks only from the last trace on that the gate makes.
import dataclasses
import functools
import math
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops

def make():
    box = []
    return box.append, box.count


PUSH, COUNT = make()


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
        PUSH((b, t))
        if COUNT((b, t)) > 5:
            y = y + future
        return y
