# expect: static
# what: reaches jax through the space's own ops, and its configuration through that.
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention.ops import delta as hidden

hidden.jax.config.update("jax_debug_nans", True)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
