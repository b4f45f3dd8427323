# expect: causality
# what: a teacher signal: the next input, as whole numbers that have no gradient.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        teacher = jnp.round(4 * jnp.pad(x, ((0, 0), (0, 1), (0, 0)))[:, 1:]).astype(jnp.int32)
        h = h + 0.1 * (teacher % 7).astype(h.dtype)
        return self.out(h).astype(x.dtype)
