# expect: contract|static
# what: returns something that only says it is an array.
import jax
import jax.numpy as jnp
from flax import nnx


class Fake(jax.Array):
    shape = property(lambda fake: (4, 128, 16))
    dtype = property(lambda fake: jnp.dtype("float32"))


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return Fake()
        return self.out(h).astype(x.dtype)
