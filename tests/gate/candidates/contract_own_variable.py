# expect: contract
import jax.numpy as jnp
from flax import nnx


class Scale(nnx.Param):
    pass


class TokenMixer(nnx.Module):
    """A parameter of a type of its own."""

    def __init__(self, width, heads, *, rngs):
        self.scale = Scale(jnp.ones(width))
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        h = h * self.scale[...]
        return self.out(h).astype(x.dtype)
