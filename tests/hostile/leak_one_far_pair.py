# expect: causality
# what: output 5 reads input 100, and nothing else is wrong.
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
        far = jnp.take(v, jnp.array([100]), axis=1, mode="fill", fill_value=0)
        h = h + jnp.where(jnp.arange(x.shape[1])[:, None] == 5, far, 0)
        return self.out(h).astype(x.dtype)
