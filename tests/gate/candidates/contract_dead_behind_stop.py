# expect: contract
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A parameter that only stop_gradient sees."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h * jax.lax.stop_gradient(self.scale[...])
        return self.out(h).astype(x.dtype)
