# expect: contract|static
# what: calls itself without an end.
import jax.numpy as jnp
from flax import nnx


def deeper(h):
    return deeper(h + 1)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = deeper(h)
        return self.out(h).astype(x.dtype)
