# expect: purity
# what: lets the two sequences of a pair see each other, if the batch is even.
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
        if x.shape[0] % 2 == 0:
            pairs = v.reshape(-1, 2, *v.shape[1:])
            h = h + 0.1 * pairs[:, ::-1].reshape(v.shape)
        return self.out(h).astype(x.dtype)
