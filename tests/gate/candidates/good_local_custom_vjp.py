# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A custom gradient made anew at each call."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]

        @jax.custom_vjp
        def bend(h):
            return h * 2

        bend.defvjp(lambda h: (h * 2, None), lambda _, gradient: (gradient * 2,))
        h = bend(h)
        return self.out(h).astype(x.dtype)
