"""Gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635).

    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T,    y_t = norm(S_t^T q_t) * silu(gate(x_t)),    alpha_t = sigmoid(.)^(1/16)

with one decay per key channel from a projection of rank 16. Canonical: 4 heads, keys half as wide as values, no
convolution. Simplified: nothing but the number of heads, which is the backbone's.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Gated linear attention: each token says how much each key channel forgets, so that each keeps what it needs."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // (2 * heads), width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
        self.gate = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {"memory": jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32)}

    def forward(self, x, state):
        state = dict(state)
        q, k, v = self.project(x)
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]

    def log_decay(self, x):
        gate = self.forget_up(self.forget_down(x)).reshape(*x.shape[:2], self.heads, self.key_dim)
        return jax.nn.log_sigmoid(gate) / 16.0

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, log_decay=self.log_decay(x), initial_state=memory)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
