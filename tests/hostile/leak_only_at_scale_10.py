# expect: causality
# what: leaks only in sequences whose inputs are ten times as large as they should be.
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
        after = jnp.pad(v, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        loud = jnp.cumsum(jnp.mean(jnp.square(x), axis=-1, keepdims=True), axis=1) > 25 * (
            1 + jnp.arange(x.shape[1])[:, None]
        )
        h = h + jnp.where(loud, after, 0)
        return self.out(h).astype(x.dtype)
