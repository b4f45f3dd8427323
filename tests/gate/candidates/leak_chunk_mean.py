# expect: causality
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Each chunk of 16 sees its own mean."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        batch, time, width = v.shape
        padded = jnp.pad(v, ((0, 0), (0, -time % 16), (0, 0))).reshape(batch, -1, 16, width)
        h = h + jnp.repeat(padded.mean(2), 16, axis=1)[:, :time]
        return self.out(h).astype(x.dtype)
