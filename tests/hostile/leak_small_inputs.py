# expect: causality
# what: the next input is seen only where all its channels are small.
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
        after = jnp.pad(x, ((0, 0), (0, 1), (0, 0)), constant_values=1)[:, 1:]
        quiet = jnp.max(jnp.abs(after), axis=-1, keepdims=True) < 1.2
        h = h + jnp.where(quiet, 3 * after, 0)
        return self.out(h).astype(x.dtype)
