"""Gated DeltaProduct with two steps (Siems et al. 2025, https://arxiv.org/abs/2502.10297).

    S <- exp(g_t) S;  S <- S + beta_t k_tj (v_tj - S^T k_tj)^T for j = 1, 2;  y_t = norm(S^T q_t) * silu(gate(x_t))

with beta_t in [0, 2], so that each step can reflect, and both together rotate. Canonical: as Gated DeltaNet, each step
with key, value and strength of its own. Simplified: both steps share the strength, and the second step's key and value
come from the token alone, without convolution.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Two delta steps per token, each with its own key and value: a product of reflections, which can rotate."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.second_key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.second_value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)
        self.step_size = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.heads))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)
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
        return -jnp.exp(self.log_rate[...]) * jax.nn.softplus(self.step_size(x) + self.step_bias[...])

    def write_strength(self, x):
        return 2.0 * jax.nn.sigmoid(self.strength(x))

    def update(self, x, q, k, v, memory):
        second_key = ops.l2_normalize(jax.nn.silu(self.second_key(x)).reshape(k.shape))
        second_value = self.second_value(x).reshape(v.shape)
        beta = jnp.repeat(self.write_strength(x), 2, axis=1)
        keys = rearrange([k, second_key], "step batch time ... -> batch (time step) ...")
        values = rearrange([v, second_value], "step batch time ... -> batch (time step) ...")
        return ops.delta_rule(q, keys, values, beta, log_decay=self.log_decay(x), initial_state=memory)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
