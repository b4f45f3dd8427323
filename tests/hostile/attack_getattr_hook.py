# expect: static
# what: a class that answers every attribute.
import jax.numpy as jnp
from flax import nnx


class Anything:
    def __getattr__(self, name):
        return self

    def __call__(self, *args):
        return self


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h * (1 if Anything().shape else 2)
        return self.out(h).astype(x.dtype)
