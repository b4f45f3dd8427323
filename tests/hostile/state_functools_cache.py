# expect: static|purity
# what: hides a list behind functools.cache, and counts its calls in it.
import functools

import jax.numpy as jnp
from flax import nnx


@functools.cache
def memory():
    return []


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        memory().append(1)
        h = h * (1 + 1e-3 * len(memory()))
        return self.out(h).astype(x.dtype)
