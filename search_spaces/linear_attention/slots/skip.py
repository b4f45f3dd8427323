"""Skip: what of the present token goes past the state, straight to the readout."""

# mypy: ignore-errors
import jax.numpy as jnp
from flax import nnx


class Off:
    """No skip: the present token too is read through the state."""


class Value:
    """The token's own value beside the state's output: the state need not hold what is at hand (Mamba2's D)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.direct = nnx.Param(jnp.ones((self.heads, 1)))

    def skip(self, q, k, v, y):
        return y + self.direct[...] * v


class CurrentToken:
    """The token's own value, as far as its query and key meet: a second weight for the present (RWKV7)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.current = nnx.Param(jnp.full((self.heads, self.key_dim), self.key_dim**-0.5))

    def skip(self, q, k, v, y):
        return y + jnp.sum(q * self.current[...] * k, axis=-1, keepdims=True) * v
