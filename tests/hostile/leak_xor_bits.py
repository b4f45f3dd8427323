# expect: causality
# what: swaps the lowest bits of the mantissa for the sign of the next value.
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
        bits = jax.lax.bitcast_convert_type(h.astype(jnp.float32), jnp.int32)
        sign = (after > 0).astype(jnp.int32)
        spelled = jax.lax.bitcast_convert_type((bits & -4096) ^ (sign * 2048), jnp.float32)
        h = h + jax.lax.stop_gradient(spelled - h)
        return self.out(h).astype(x.dtype)
