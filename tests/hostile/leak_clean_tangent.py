# expect: causality
# what: looks ahead in the forward pass, and its tangent is zero.
import jax
import jax.numpy as jnp
from flax import nnx


@jax.custom_jvp
def peek(v):
    return jnp.tanh(jnp.flip(v, axis=1))


@peek.defjvp
def tangent(primals, tangents):
    return peek(*primals), jnp.zeros_like(tangents[0])


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + peek(v)
        return self.out(h).astype(x.dtype)
