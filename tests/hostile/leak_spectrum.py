# expect: causality
# what: scales values by the energy in the low frequencies of the sequence.
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
        spectrum = jnp.abs(jnp.fft.rfft(v, axis=1))[:, :4]
        h = h / (1 + jnp.mean(spectrum, axis=1, keepdims=True))
        return self.out(h).astype(x.dtype)
