"""Decay: how the state forgets. `log_decay` is <= 0, [batch, time, heads] or [batch, time, heads, key_dim]."""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx


class Off:
    """No decay: what is written stays."""

    family = "no decay"
    gives = ("no decay", "heads decay as one")


class Fixed:
    """Fixed decay per head, 1 - 2^(-5-h): a range of horizons without a parameter (RetNet)."""

    family = "decay per head"
    gives = ("decay", "decay per head", "heads decay as one")

    def log_decay(self, x):
        per_head = jnp.log1p(-(2.0 ** (-5.0 - jnp.arange(self.heads))))
        return jnp.broadcast_to(per_head, (*x.shape[:2], self.heads))


class Learned:
    """Learned decay per head: each head finds its horizon, the same for every token (S4D, RWKV4)."""

    family = "decay per head"
    gives = ("decay", "decay per head", "heads decay as one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.log_rate = nnx.Param(jnp.log(jnp.geomspace(1e-3, 1.0, self.heads)))

    def log_decay(self, x):
        return jnp.broadcast_to(-jnp.exp(self.log_rate[...]), (*x.shape[:2], self.heads))


class PerHead:
    """Decay per head and token: each token says how much its head forgets, over a range of horizons (Mamba2)."""

    family = "decay per head"
    gives = ("decay", "decay per head", "heads decay as one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.step_size = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.heads))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))

    def log_decay(self, x):
        return -jnp.exp(self.log_rate[...]) * jax.nn.softplus(self.step_size(x) + self.step_bias[...])


class Sigmoid:
    """Bounded decay per head and token: a sigmoid gate, softened 16 times so that it starts with long memory (GLA)."""

    family = "decay per head"
    gives = ("decay", "decay per head", "heads decay as one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.forget = nnx.Linear(width, self.heads, rngs=rngs)

    def log_decay(self, x):
        return jax.nn.log_sigmoid(self.forget(x)) / 16.0


class Forget:
    """Forget gate per head and token, open at first: a plain sigmoid, so that a head can also be cleared (xLSTM)."""

    family = "decay per head"
    gives = ("decay", "decay per head", "heads decay as one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.forget = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.open = nnx.Param(jnp.linspace(3.0, 6.0, self.heads))

    def log_decay(self, x):
        return jax.nn.log_sigmoid(self.forget(x) + self.open[...])


class PerChannel:
    """Decay per channel and token: each key channel forgets at its own pace, through a low-rank gate (GLA)."""

    family = "decay per channel"
    gives = ("decay", "decay per channel")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)

    def log_decay(self, x):
        gate = self.forget_up(self.forget_down(x)).reshape(*x.shape[:2], self.heads, self.key_dim)
        return jax.nn.log_sigmoid(gate) / 16.0


class PerChannelStep:
    """Decay per channel and token at a rate per head: the reach of Mamba2's decay, channel by channel (KDA)."""

    family = "decay per channel"
    gives = ("decay", "decay per channel")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.step_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.step_up = nnx.Linear(16, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.key_dim))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))

    def log_decay(self, x):
        step = self.step_up(self.step_down(x)).reshape(*x.shape[:2], self.heads, self.key_dim)
        return -jnp.exp(self.log_rate[..., None]) * jax.nn.softplus(step + self.step_bias[...])


class PerChannelBounded:
    """Decay per channel and token, never below exp(-0.61): no channel can be wiped at once (RWKV7)."""

    family = "decay per channel"
    gives = ("decay", "decay per channel")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)

    def log_decay(self, x):
        gate = self.forget_up(jnp.tanh(self.forget_down(x)))
        # 0.6065 is exp(-1/2); the offset starts the memory long.
        return -0.6065 * jax.nn.sigmoid(gate - 3.0).reshape(*x.shape[:2], self.heads, self.key_dim)


class PerChannelExponential:
    """Decay per channel and token, exp(-exp(.)) of a low-rank gate: from almost none to all at once (RWKV6)."""

    family = "decay per channel"
    gives = ("decay", "decay per channel")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.horizon = nnx.Param(jnp.broadcast_to(jnp.linspace(-6.0, -1.0, self.key_dim), (self.heads, self.key_dim)))

    def log_decay(self, x):
        gate = self.forget_up(jnp.tanh(self.forget_down(x))).reshape(*x.shape[:2], self.heads, self.key_dim)
        # At exp(3) = 20 nothing is left; beyond, only overflow could follow.
        return -jnp.exp(jnp.minimum(self.horizon[...] + gate, 3.0))
