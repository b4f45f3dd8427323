# expect: causality
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Looks ahead at the shape of training alone."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        after = jnp.pad(v, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        if v.shape[:2] == (4, 256):
            h = h + after
        return self.out(h).astype(x.dtype)
