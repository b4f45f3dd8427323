# expect: contract|purity|static
# what: makes a further matrix in its first call, after the count.
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
        if not hasattr(self, "late"):
            self.late = nnx.Param(jnp.ones((x.shape[-1], 40 * x.shape[-1])))
        h = h + jnp.tanh(v @ self.late.value)[..., : x.shape[-1]]
        return self.out(h).astype(x.dtype)
