# expect: contract
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Two numbers whose difference bfloat16 rounds to zero."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        h = h / (jnp.asarray(1.002, x.dtype) - jax.nn.sigmoid(0.2 * x))
        return self.out(h).astype(x.dtype)
