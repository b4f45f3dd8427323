# expect: cost
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A mask of all pairs, reduced at once: little arithmetic, quadratic memory."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        near = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), v.dtype))
        h = h + near.sum(1)[:, None] * 1e-3
        return self.out(h).astype(x.dtype)
