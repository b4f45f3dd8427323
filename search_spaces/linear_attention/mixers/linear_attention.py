"""Linear attention (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236).

    S_t = S_{t-1} + phi(k_t) v_t^T,    y_t = norm(S_t^T phi(q_t)),    phi = elu + 1

Canonical: 8 heads. Simplified: an RMS norm stands for the division by `phi(q_t) . sum_s phi(k_s)`, as in later work
(Qin et al. 2022, https://arxiv.org/abs/2210.10340): it is bounded where that sum is small.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Linear attention: keys and values in one sum, read by each query; cheap, and unable to forget."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
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
        q, k = self.feature_map(q), self.feature_map(k)
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]

    def feature_map(self, z):
        return jax.nn.elu(z) + 1.0

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, initial_state=memory)

    def readout(self, x, y):
        y = ops.rms_norm(y) * self.scale[...]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)
