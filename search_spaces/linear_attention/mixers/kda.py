"""Kimi Delta Attention (Kimi Team 2025, https://arxiv.org/abs/2510.26692).

    S <- diag(exp(g_t)) S;  S <- S + beta_t k_t (v_t - S^T k_t)^T;  y_t = norm(S^T q_t) * sigmoid(gate(x_t)),
    g_t = -A softplus(.), per key channel, from a projection of low rank

Canonical: as Gated DeltaNet, heads of 128, values as wide as keys, in a hybrid of 3 such layers to 1 of full attention.
Simplified: no other layers, and the output gate has full rank.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Kimi Delta Attention: the delta rule, with a decay for every key channel."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)
        self.step_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.step_up = nnx.Linear(16, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.key_dim))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
        self.gate = nnx.Linear(width, self.heads * self.value_dim, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {
            "memory": jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32),
            "recent": self.convolution.init_state(batch),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v, state["recent"] = self.project(x, state["recent"])
        q, k = self.normalize(q, k)
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x, recent):
        projected = jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)
        convolved, recent = self.convolution(projected, recent)
        keys = self.heads * self.key_dim
        q, k, v = jnp.split(jax.nn.silu(convolved), [keys, 2 * keys], axis=-1)
        return *(z.reshape(*x.shape[:2], self.heads, -1) for z in (q, k, v)), recent

    def normalize(self, q, k):
        return ops.l2_normalize(q), ops.l2_normalize(k)

    def log_decay(self, x):
        step = self.step_up(self.step_down(x)).reshape(*x.shape[:2], self.heads, self.key_dim)
        return -jnp.exp(self.log_rate[..., None]) * jax.nn.softplus(step + self.step_bias[...])

    def write_strength(self, x):
        return jax.nn.sigmoid(self.strength(x))

    def update(self, x, q, k, v, memory):
        beta = self.write_strength(x)
        return ops.delta_rule(q, k, v, beta, log_decay=self.log_decay(x), initial_state=memory)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.sigmoid(self.gate(x))).astype(x.dtype)
