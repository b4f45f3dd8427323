# expect: causality
# what: leaks only where inputs have mean square 1: what the backbone's norm gives, and noise does not.
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
        power = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=(-1,), keepdims=True)
        normed = jnp.all(jnp.abs(power - 1) < 0.05, axis=1, keepdims=True)
        h = jnp.where(normed, h + after, h)
        return self.out(h).astype(x.dtype)
