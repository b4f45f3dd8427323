# expect: purity
import jax.numpy as jnp
from flax import nnx

NUMBERS = zip((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), strict=True)


class TokenMixer(nnx.Module):
    """An iterator of the module's."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        h = h * next(NUMBERS)
        return self.out(h).astype(x.dtype)
