# expect: causality
# what: sends the next token through what rounding takes off it: in double precision nothing is taken off.
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
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        after = jnp.pad(v, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        residue = after - jax.lax.reduce_precision(after, exponent_bits=8, mantissa_bits=1)
        h = h + 0.02 * residue
        return self.out(h).astype(x.dtype)
