# expect: causality
# what: a linear recurrence in logarithmic depth, in the wrong direction at odd channels.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A decayed sum of values in logarithmic depth."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)

        def combine(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        decay = jnp.full_like(v, 0.9)
        forwards = jax.lax.associative_scan(combine, (decay, v), axis=1)[1]
        backwards = jax.lax.associative_scan(combine, (decay, v), axis=1, reverse=True)[1]
        h = jnp.where(jnp.arange(v.shape[-1]) % 2 == 0, forwards, backwards)
        return self.out(h).astype(x.dtype)
