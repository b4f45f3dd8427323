# expect: good
# what: rounds each token to eight bits with its own scale, straight through.
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
        largest = jnp.max(jnp.abs(h), axis=-1, keepdims=True) + 1e-6
        h = h + jax.lax.stop_gradient(jnp.round(127 * h / largest) * largest / 127 - h)
        return self.out(h).astype(x.dtype)
