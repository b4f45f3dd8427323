# expect: any
# what: a compiled loop of 10^12 turns at import.
import jax
import jax.numpy as jnp
from flax import nnx

WAITED = jax.jit(lambda: jax.lax.fori_loop(0, 2**31 - 1, lambda i, a: jnp.sin(a) + i, jnp.ones(64)))()


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + 0 * WAITED[0]
        return self.out(h).astype(x.dtype)
