# expect: contract
# what: forty times the parameters of a layer.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.up = nnx.Param(jax.random.normal(rngs.params(), (width, 64 * width)))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + jax.nn.gelu(v @ self.up.value) @ self.up.value.T / 1e3
        return self.out(h).astype(x.dtype)
