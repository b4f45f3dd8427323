# expect: good
# what: goes through its heads by lax.map.
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
        batch, time, width = v.shape
        heads = jnp.moveaxis(v.reshape(batch, time, 2, width // 2), 2, 0)
        h = jax.lax.map(lambda head: jnp.cumsum(head, axis=1), heads) / (1 + jnp.arange(time)[:, None])
        h = jnp.moveaxis(h, 0, 2).reshape(batch, time, width)
        return self.out(h).astype(x.dtype)
