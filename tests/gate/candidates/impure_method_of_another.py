# expect: purity
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A class of the harness's, patched through a method of the mixer."""

    def __init__(self, width, heads, *, rngs):
        TokenMixer.relabel(nnx.Embed)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)

    def relabel(self):
        self.attend = None
