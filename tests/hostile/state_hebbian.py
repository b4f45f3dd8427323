# expect: purity|static
# what: writes to its own weights in the forward pass: it trains where it should only predict.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.fast = nnx.Param(jnp.zeros((width, width)))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        self.fast.value = self.fast.value + 1e-3 * jnp.einsum("btw,btu->wu", x, h)
        h = h + x @ self.fast.value
        return self.out(h).astype(x.dtype)
