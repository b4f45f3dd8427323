# expect: static
# what: reads a file at import.
import jax.numpy as jnp
from flax import nnx

TEXT = open("canary/secret").read()  # noqa: SIM115


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h * len(TEXT) / len(TEXT)
        return self.out(h).astype(x.dtype)
