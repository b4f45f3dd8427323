# expect: causality
# what: chunks that are summed up correctly, but for the last one, which is spread over itself.
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
        last = x.shape[1] // 16 * 16 - 16
        inside = jnp.arange(x.shape[1])[:, None] >= max(last, 0)
        h = h + jnp.where(inside, jnp.mean(jnp.where(inside, v, 0), axis=1, keepdims=True), 0)
        return self.out(h).astype(x.dtype)
