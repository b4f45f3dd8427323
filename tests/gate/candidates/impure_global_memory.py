# expect: purity
import jax.numpy as jnp
from flax import nnx

MEMORY = {}


class TokenMixer(nnx.Module):
    """Remembers the last input in a global dictionary."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + 0 * MEMORY.get("last", 0)
        MEMORY["last"] = v.mean()
        return self.out(h).astype(x.dtype)
