"""Write strength: beta, how much of a value a token writes; [batch, time, heads].

Read by the write rules that gate or correct what they write. Strengths above 1 overshoot, which is stable with unit
keys alone.
"""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx


class Off:
    """No write strength: the write rule asks for none."""


class Constant:
    """Constant write strength per head: the rule itself decides, at no cost by token."""

    gives = ("strength", "strength to one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Param(jnp.zeros((self.heads,)))

    def write_strength(self, x):
        return jnp.broadcast_to(jax.nn.sigmoid(self.strength[...]), (*x.shape[:2], self.heads))


class Sigmoid:
    """Write strength in [0, 1] by token: what says nothing new need not be written (DeltaNet)."""

    gives = ("strength", "strength to one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)

    def write_strength(self, x):
        return jax.nn.sigmoid(self.strength(x))


class Signed:
    """Write strength in [0, 2] by token: beyond 1 a write turns the old value's sign, which parity and other
    state tracking need (Grazzi et al. 2024)."""

    gives = ("strength",)
    needs = ("unit keys",)

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)

    def write_strength(self, x):
        return 2.0 * jax.nn.sigmoid(self.strength(x))


class Selective:
    """Write strength as a step size by token, over a range of scales: strong writes are rare and short (Mamba2)."""

    gives = ("strength", "strength to one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.resting_strength = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(0.05, 0.5, self.heads))))

    def write_strength(self, x):
        return 1.0 - jnp.exp(-jax.nn.softplus(self.strength(x) + self.resting_strength[...]))
