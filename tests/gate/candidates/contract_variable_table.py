# expect: contract
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Numbers in a variable that is no parameter."""

    def __init__(self, width, heads, *, rngs):
        self.table = nnx.Variable(jnp.sin(jnp.arange(10_000.0)).reshape(100, 100))
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) @ self.table[...][: v.shape[-1], : v.shape[-1]]
        return self.out(h).astype(x.dtype)
