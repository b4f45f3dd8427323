"""Mamba2 (Dao and Gu 2024, https://arxiv.org/abs/2405.21060).

    S_t = a_t S_{t-1} + (1 - a_t) k_t v_t^T,    y_t = norm(S_t^T q_t + D v_t) * silu(gate(x_t)),
    a_t = exp(-A softplus(step(x_t)))

Canonical: state 128, heads of 64, values twice as wide as the model, convolution of 4 over q, k and v, A in (1, 16),
step sizes from 1e-3 to 0.1. Simplified: each head has queries and keys of its own (canonical: all heads share them),
writes have the strength 1 - a_t, which keeps the state an average (canonical: the step size), and the output is
normalised per head and then gated (canonical: gated, then normalised as a whole).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """A selective state space: a step size per head and token says how much is forgotten, and how much written."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, 2 * width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.step_size = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.heads))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)
        self.direct = nnx.Param(jnp.ones((self.heads, 1)))
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
            "recent": self.convolution.init_state(batch),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v, state["recent"] = self.project(x, state["recent"])
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        y = self.skip(q, k, v, y)
        return self.readout(x, y), state

    def project(self, x, recent):
        projected = jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)
        convolved, recent = self.convolution(projected, recent)
        keys = self.heads * self.key_dim
        q, k, v = jnp.split(jax.nn.silu(convolved), [keys, 2 * keys], axis=-1)
        return *(z.reshape(*x.shape[:2], self.heads, -1) for z in (q, k, v)), recent

    def log_decay(self, x):
        return -jnp.exp(self.log_rate[...]) * jax.nn.softplus(self.step_size(x) + self.step_bias[...])

    def update(self, x, q, k, v, memory):
        log_decay = self.log_decay(x)
        written = k * -jnp.expm1(log_decay).reshape(*k.shape[:3], -1)
        return ops.linear_attention(q, written, v, log_decay=log_decay, initial_state=memory)

    def skip(self, q, k, v, y):
        return y + self.direct[...] * v

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
