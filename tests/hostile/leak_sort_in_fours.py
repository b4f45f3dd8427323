# expect: causality
# what: sorts values within groups of four tokens.
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
        batch, time, width = v.shape
        fours = jnp.pad(v, ((0, 0), (0, -time % 4), (0, 0))).reshape(batch, -1, 4, width)
        h = h + jnp.sort(fours, axis=2).reshape(batch, -1, width)[:, :time]
        return self.out(h).astype(x.dtype)
