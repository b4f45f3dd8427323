"""RetNet (Sun et al. 2023, https://arxiv.org/abs/2307.08621).

    S_t = gamma_h S_{t-1} + k_t v_t^T,    y_t = norm(S_t^T q_t) * silu(gate(x_t)),    gamma_h = 1 - 2^(-5-h)

with queries and keys turned by rotary positions. Canonical: values twice as wide as keys, no convolution. Simplified:
key and query heads are as wide as the backbone's (canonical: 256).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Retention: each head forgets at a fixed pace of its own, and rotary positions say how far back a match lies."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, 2 * width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
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
            "position": jnp.zeros((batch,), jnp.int32),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v = self.project(x)
        q, k, state["position"] = self.rotate(q, k, state["position"])
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]

    def rotate(self, q, k, position):
        return ops.rotary(q, position), ops.rotary(k, position), position + q.shape[1]

    def log_decay(self, x):
        per_head = jnp.log1p(-(2.0 ** (-5.0 - jnp.arange(self.heads))))
        return jnp.broadcast_to(per_head, (*x.shape[:2], self.heads))

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, log_decay=self.log_decay(x), initial_state=memory)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
