# expect: contract
# what: keeps 65,536 numbers in a variable that nobody counts as parameters.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.table = nnx.Variable(jax.random.normal(rngs.params(), (4096, width)))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        key = jnp.argmax(v, axis=-1)
        h = h + jnp.take(self.table.value, key, axis=0)
        return self.out(h).astype(x.dtype)
