"""HGRN2 (Qin et al. 2024, https://arxiv.org/abs/2404.07904).

    S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T,    y_t = norm(S_t^T q_t),    f_t = b + (1 - b) sigmoid(k_t)

The key is what is forgotten, so that the state stays an average; unit keys would break the tie. Canonical: heads of
128, SiLU on the queries, one norm over all heads, no convolution, and bounds b that rise from layer to layer.
Simplified: plain queries, a norm per head, and, since all layers are alike, bounds that rise over the channels of a
head instead, and are learned.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """HGRN2: a gated recurrence with a matrix as its state; what a channel forgets is what it takes in."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.bound = nnx.Param(jnp.broadcast_to(jnp.linspace(-2.0, 4.0, self.key_dim), (self.heads, self.key_dim)))
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
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]

    def update(self, x, q, k, v, memory):
        # Not as 1 - what is kept, which in half precision is a multiple of 1/256.
        forgotten = (1.0 - jax.nn.sigmoid(self.bound[...])) * jax.nn.sigmoid(-k.astype(jnp.float32))
        return ops.linear_attention(q, forgotten, v, log_decay=jnp.log1p(-forgotten), initial_state=memory)

    def readout(self, x, y):
        y = ops.rms_norm(y) * self.scale[...]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)
