# expect: cost
# what: logarithmic depth, each level a product of matrices as wide as the sequence.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A decayed sum of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = x.shape[1]
        step, inverse = 0.9 * jnp.eye(time, k=-1, dtype=v.dtype), jnp.eye(time, dtype=v.dtype)
        for _ in range(time.bit_length()):
            inverse, step = inverse + step @ inverse, step @ step
        h = inverse @ v
        return self.out(h).astype(x.dtype)
