# expect: cost
# what: an associative scan over matrices whose size grows with the square root of the length.
import math

import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        size = max(2, math.isqrt(v.shape[1]))
        spread = jnp.repeat(v.mean(axis=-1, keepdims=True), size, axis=-1)
        moves = 0.1 * spread[..., :, None] * jnp.eye(size, k=1) + 0.9 * jnp.eye(size)

        def combine(a, b):
            return b @ a

        states = jax.lax.associative_scan(combine, moves, axis=1)
        h = h * states[..., :1, 0] + v * states[..., :1, 1]
        return self.out(h).astype(x.dtype)
