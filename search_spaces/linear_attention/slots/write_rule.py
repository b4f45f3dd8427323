"""Write rule: how a key and a value change the state.

Erasing is stable while `|1 - beta |k|^2| <= 1`: the delta rules need unit keys. A rule meets keys whole if it sees them
in products with keys and queries alone: then positions may turn both.
"""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from search_spaces.linear_attention import ops


class _Matrix:
    """One matrix per head."""

    def init_state(self, batch):
        return {"memory": jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32)}


class Additive(_Matrix):
    """Additive writes: each value is added under its key, the cheapest rule that is linear in time."""

    family = "additive"
    gives = ("keys met whole",)

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, initial_state=memory)


class Gated(_Matrix):
    """Additive writes with an input gate: a token that says nothing new need not be written."""

    family = "additive"
    gives = ("keys met whole",)
    needs = ("strength",)

    def update(self, x, q, k, v, memory):
        v = v * self.write_strength(x)[..., None]
        return ops.linear_attention(q, k, v, initial_state=memory)


class Tied(_Matrix):
    """Additive writes tied to the decay: what is forgotten makes room for what is written, so that the state
    stays an average (zero-order hold as in S4)."""

    family = "additive"
    gives = ("keys met whole",)
    needs = ("decay",)

    def update(self, x, q, k, v, memory):
        log_decay = self.log_decay(x)
        written = k * -jnp.expm1(log_decay).reshape(*k.shape[:3], -1)
        return ops.linear_attention(q, written, v, log_decay=log_decay, initial_state=memory)


class TiedKeys(_Matrix):
    """Additive writes under keys that say what is forgotten: each channel of the state is an average of what it was
    and what is new, and a learned bound keeps some channels slow (HGRN2)."""

    family = "additive, decay per channel"
    needs = ("no decay", "free keys")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.bound = nnx.Param(jnp.broadcast_to(jnp.linspace(-2.0, 4.0, self.key_dim), (self.heads, self.key_dim)))

    def update(self, x, q, k, v, memory):
        # Not as 1 - what is kept, which in half precision is a multiple of 1/256.
        forgotten = (1.0 - jax.nn.sigmoid(self.bound[...])) * jax.nn.sigmoid(-k.astype(jnp.float32))
        return ops.linear_attention(q, forgotten, v, log_decay=jnp.log1p(-forgotten), initial_state=memory)


class Bonus(_Matrix):
    """Additive writes that are read one token late, the present token by a weight of its own: what is here and what
    is remembered no longer share one scale (RWKV6)."""

    family = "additive"

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.bonus = nnx.Param(jnp.ones((self.heads, self.key_dim)))

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, bonus=self.bonus[...], initial_state=memory)


class Exponential:
    """Writes through an exponential input gate, read relative to all that was written: one strong token can outweigh
    the whole past (xLSTM)."""

    family = "normalised"
    gives = ("keys met whole",)
    needs = ("decay per head",)

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.input_gate = nnx.Linear(width, self.heads, rngs=rngs)

    def init_state(self, batch):
        return {"memory": ops.mlstm_state(batch, self.heads, self.key_dim, self.value_dim)}

    def update(self, x, q, k, v, memory):
        return ops.mlstm(q, k, v, self.input_gate(x), self.log_decay(x), initial_state=memory)


class Delta(_Matrix):
    """Delta rule: a write first takes out what the state holds under its key, so that keys can be reused (DeltaNet)."""

    family = "delta"
    gives = ("keys met whole",)
    needs = ("unit keys", "strength")

    def update(self, x, q, k, v, memory):
        beta = self.write_strength(x)
        return ops.delta_rule(q, k, v, beta, initial_state=memory)


class TwoSteps(_Matrix):
    """Two delta steps per token, each with its own key and value: a product of two reflections can rotate, which
    tracking a permutation needs (DeltaProduct)."""

    family = "two-step delta"
    needs = ("unit keys", "strength")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.second_key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.second_value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)

    def update(self, x, q, k, v, memory):
        second_key = ops.l2_normalize(jax.nn.silu(self.second_key(x)).reshape(k.shape))
        second_value = self.second_value(x).reshape(v.shape)
        beta = jnp.repeat(self.write_strength(x), 2, axis=1)
        keys = rearrange([k, second_key], "step batch time ... -> batch (time step) ...")
        values = rearrange([v, second_value], "step batch time ... -> batch (time step) ...")
        return ops.delta_rule(q, keys, values, beta, initial_state=memory)


class ClosedLoop(_Matrix):
    """Delta rule that erases less than it writes, and takes its own key out of the query: two feedbacks of a control
    loop, one scalar per head each (Comba)."""

    family = "delta"
    gives = ("keys met whole",)
    needs = ("unit keys", "strength", "strength to one")

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.feedback = nnx.Param(jnp.ones((self.heads, 1)))
        self.correction = nnx.Param(jnp.full((self.heads, 1), 0.02))

    def update(self, x, q, k, v, memory):
        q = q - self.correction[...] * k
        written = self.write_strength(x)[..., None] * k
        erased = jax.nn.sigmoid(self.feedback[...]) * k
        return ops.dplr(q, written, v, erased, -written, initial_state=memory)


class ChannelDelta(_Matrix):
    """Delta rule with a rate per channel: erases under one key, and writes under another of its own (RWKV7)."""

    family = "channel-wise delta"

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.rate_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.rate_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)
        self.removal = nnx.Param(jnp.ones((self.heads, self.key_dim)))
        self.replacement = nnx.Param(jnp.ones((self.heads, self.key_dim)))

    def update(self, x, q, k, v, memory):
        rate = jax.nn.sigmoid(self.rate_up(self.rate_down(x))).reshape(k.shape)
        removed = ops.l2_normalize(k * self.removal[...])
        written = k * (1.0 + (rate - 1.0) * self.replacement[...])
        return ops.dplr(q, written, v, -removed, removed * rate, initial_state=memory)
