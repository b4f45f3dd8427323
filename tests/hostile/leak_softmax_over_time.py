# expect: causality
# what: weights of values normalised over the whole sequence.
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
        weights = jax.nn.softmax(v.mean(axis=-1), axis=1)
        h = jnp.cumsum(v * weights[..., None], axis=1)
        return self.out(h).astype(x.dtype)
