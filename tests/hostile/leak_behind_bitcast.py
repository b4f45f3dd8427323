# expect: causality
# what: a leak of 4e-5 beside a bitcast, which has no counterpart in double precision.
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
        h = h + jax.lax.stop_gradient(jax.lax.bitcast_convert_type(bits, jnp.float32) - h)
        h = h + 4e-5 * jax.lax.stop_gradient(after)
        return self.out(h).astype(x.dtype)
