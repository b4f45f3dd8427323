"""Linear attention (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236), with an RMS norm on the output."""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Linear attention: positive features make attention a sum over the past, which a state of fixed size can carry."""

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
        return jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32)

    def forward(self, x, memory):
        q, k, v = self.project(x)
        q, k = self.feature_map(q), self.feature_map(k)
        y, memory = self.update(x, q, k, v, memory)
        return self.readout(x, y), memory

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
