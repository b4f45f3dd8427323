# expect: contract|causality|any
# what: no two tokens either: a pointwise map times a function of the position.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A pointwise map that fades with the position."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = v * jnp.exp(-jnp.arange(x.shape[1], dtype=v.dtype) / 64)[:, None]
        return self.out(h).astype(x.dtype)
