# expect: causality
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Leaks only beyond 100 tokens."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        time = x.shape[1]
        y = self.mix(jnp.cumsum(x, axis=1) / (1.0 + jnp.arange(time)[:, None]))
        if time > 100:
            ahead = jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)))
            y = y + jnp.where(jnp.arange(time)[:, None] > 100, ahead, 0.0)
        return y
