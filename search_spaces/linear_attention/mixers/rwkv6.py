"""RWKV6, Finch (Peng et al. 2024, https://arxiv.org/abs/2404.05892).

    y_t = norm((S_{t-1} + diag(u) k_t v_t^T)^T q_t) * silu(gate(x_t)),    S_t = diag(w_t) S_{t-1} + k_t v_t^T,
    w_t = exp(-exp(.)), per key channel, from a projection of low rank

Canonical: heads of 64, token shift. Simplified: the token shift's mixture is learned but does not depend on the token,
and decay and gate see the unshifted token.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """RWKV6: decay per channel and token, and a weight of its own for the token that is being read."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.bonus = nnx.Param(jnp.ones((self.heads, self.key_dim)))
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.horizon = nnx.Param(jnp.broadcast_to(jnp.linspace(-6.0, -1.0, self.key_dim), (self.heads, self.key_dim)))
        self.mix = nnx.Param(jnp.full((3, 1, 1, width), 0.5))
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
        self.gate = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {
            "memory": jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32),
            "recent": jnp.zeros((batch, 1, self.query.in_features), jnp.float32),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v, state["recent"] = self.project(x, state["recent"])
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x, recent):
        shifted = jnp.concatenate([recent.astype(x.dtype), x], axis=1)
        for_query, for_key, for_value = x + self.mix[...] * (shifted[:, :-1] - x)
        projected = self.query(for_query), self.key(for_key), self.value(for_value)
        q, k, v = (z.reshape(*x.shape[:2], self.heads, -1) for z in projected)
        return q, k, v, shifted[:, -1:].astype(recent.dtype)

    def log_decay(self, x):
        gate = self.forget_up(jnp.tanh(self.forget_down(x))).reshape(*x.shape[:2], self.heads, self.key_dim)
        # At exp(3) = 20 nothing is left; beyond, only overflow could follow.
        return -jnp.exp(jnp.minimum(self.horizon[...] + gate, 3.0))

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, log_decay=self.log_decay(x), bonus=self.bonus[...], initial_state=memory)

    def readout(self, x, y):
        y = (ops.layer_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
