# expect: static|purity
# what: a list in a closure remembers how often it was traced.
import jax.numpy as jnp
from flax import nnx


def make_counter():
    seen = []

    def count():
        seen.append(len(seen))
        return 1.0 + 1e-3 * len(seen)

    return count


counter = make_counter()


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h * counter()
        return self.out(h).astype(x.dtype)
