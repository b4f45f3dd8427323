# expect: good
# what: recomputes its chunks in the backward pass.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jax.checkpoint(lambda v: jnp.tanh(jax.lax.cumsum(v, axis=1) / 16))(v)
        return self.out(h).astype(x.dtype)
