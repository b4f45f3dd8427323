# expect: purity|causality
# what: averages the last tokens of a batch where at least four sequences are in it.
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
        if x.shape[0] >= 4:
            h = h.at[:, -1].add(0.1 * jnp.mean(v[:, -1], axis=0))
        return self.out(h).astype(x.dtype)
