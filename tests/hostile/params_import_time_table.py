# expect: contract|static
# what: a table of random features computed at import, which is no parameter at all.
import jax
import jax.numpy as jnp
from flax import nnx

FEATURES = jax.random.normal(jax.random.key(0), (256, 1024))


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + jnp.cos(v @ FEATURES[: v.shape[-1]]) @ FEATURES.T[:, : v.shape[-1]] / 1024
        return self.out(h).astype(x.dtype)
