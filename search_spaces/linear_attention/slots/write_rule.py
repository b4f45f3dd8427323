"""Write rule: how a key and a value change the state.

Erasing is stable while `|1 - beta |k|^2| <= 1`: the delta rules need unit keys.
"""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class Additive:
    """Additive writes: each value is added under its key, the cheapest rule that is linear in time."""

    family = "additive"

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, initial_state=memory)


class Gated:
    """Additive writes with an input gate: a token that says nothing new need not be written."""

    family = "additive"

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)

    def update(self, x, q, k, v, memory):
        v = v * jax.nn.sigmoid(self.strength(x))[..., None]
        return ops.linear_attention(q, k, v, initial_state=memory)


class Tied:
    """Additive writes tied to the decay: what is forgotten makes room for what is written, so that the state
    stays an average (zero-order hold as in S4; HGRN2)."""

    family = "additive"
    needs = ("decay",)

    def update(self, x, q, k, v, memory):
        log_decay = self.log_decay(x)
        written = k * -jnp.expm1(log_decay).reshape(*k.shape[:3], -1)
        return ops.linear_attention(q, written, v, log_decay=log_decay, initial_state=memory)


class Delta:
    """Delta rule: a write first takes out what the state holds under its key, so that keys can be reused (DeltaNet)."""

    family = "delta"
    needs = ("unit keys",)

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)

    def update(self, x, q, k, v, memory):
        beta = jax.nn.sigmoid(self.strength(x))
        return ops.delta_rule(q, k, v, beta, initial_state=memory)


class SignedDelta:
    """Delta rule with strength up to 2: beyond 1 a write turns the old value's sign, which parity and other
    state tracking need (Grazzi et al. 2024)."""

    family = "delta"
    needs = ("unit keys",)

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)

    def update(self, x, q, k, v, memory):
        beta = 2.0 * jax.nn.sigmoid(self.strength(x))
        return ops.delta_rule(q, k, v, beta, initial_state=memory)
