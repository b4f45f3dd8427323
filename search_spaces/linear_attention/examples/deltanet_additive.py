"""DeltaNet without the delta rule: writes are added, and nothing is taken out.

    S_t = S_{t-1} + k_t v_t^T,    y_t = norm(S_t^T q_t)

The baseline but for its write rule: what the grammar makes of it with "additive". A pair for `nas probe`: the same
convolution and unit keys, so that what differs on recall is the rule.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Additive writes under unit keys: where two keys overlap, so do their values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
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

    def update(self, x, q, k, v, memory):
        return ops.linear_attention(q, k, v, initial_state=memory)

    def readout(self, x, y):
        y = ops.rms_norm(y) * self.scale[...]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)
