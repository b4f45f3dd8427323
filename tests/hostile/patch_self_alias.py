# expect: static|purity
# what: calls the class self and writes to that.
import jax.numpy as jnp
from flax import nnx

self = nnx.RMSNorm
self.use_scale = False


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
