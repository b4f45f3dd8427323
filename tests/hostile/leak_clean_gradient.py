# expect: causality
# what: looks ahead in the forward pass, and has the gradient of a causal one.
import jax
import jax.numpy as jnp
from flax import nnx


@jax.custom_vjp
def peek(v):
    return jnp.roll(v, -1, axis=1)


peek.defvjp(lambda v: (peek(v), None), lambda _, gradient: (jnp.roll(gradient, 1, axis=1),))


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + peek(v)
        return self.out(h).astype(x.dtype)
