# expect: causality
# what: scatters values to where they or their predecessors are.
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
        time = jnp.arange(x.shape[1])
        target = jnp.maximum(time - (v[..., 0] > 0.5), 0)
        h = h.at[jnp.arange(x.shape[0])[:, None], target].add(v)
        return self.out(h).astype(x.dtype)
