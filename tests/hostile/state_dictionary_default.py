# expect: static|purity
# what: a keyword default that keeps the first sequence that it sees.
import jax.numpy as jnp
from flax import nnx


def keep(time, *, seen={}):  # noqa: B006
    seen.setdefault("first", time)
    return 1.0 + 1e-3 * (seen["first"] == time)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h * keep(x.shape[1])
        return self.out(h).astype(x.dtype)
