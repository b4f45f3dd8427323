# expect: good
# what: sixteen fixed frequencies in a variable that is no parameter.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.frequencies = nnx.Variable(10_000.0 ** -(jnp.arange(width) / width))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        phase = jnp.arange(x.shape[1])[:, None] * self.frequencies.value
        h = h * (1 + 0.1 * jnp.cos(phase)).astype(h.dtype)
        return self.out(h).astype(x.dtype)
