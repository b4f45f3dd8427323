# expect: causality
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Looks one token ahead beyond position 100 only."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + jnp.where(jnp.arange(x.shape[1])[:, None] > 100, jnp.pad(v[:, 1:], ((0, 0), (0, 1), (0, 0))), 0)
        return self.out(h).astype(x.dtype)
