"""Gated DeltaNet beside sliding-window attention, in one mixer (after Hymba, Dong et al. 2024,
https://arxiv.org/abs/2411.13676; the Gated DeltaNet hybrids of https://arxiv.org/abs/2412.06464).

    y_t = norm(s_t window_t + (1 - s_t) S_t^T q_t) * silu(gate(x_t)),    s_t = sigmoid(.) per head

where `window_t` is softmax attention over the last 32 tokens, with rotary positions, and S_t is Gated DeltaNet's
state; both read the same queries, keys and values. Canonical: layers of either kind, windows of 1,024 and more.
Simplified: all layers are alike, so that both are in each, and the window fits short sequences.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """A hybrid: attention sees the last tokens exactly, the delta rule keeps what came before."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.strength = nnx.Linear(width, self.heads, rngs=rngs)
        self.step_size = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.step_bias = nnx.Param(jnp.log(jnp.expm1(jnp.geomspace(1e-3, 0.1, self.heads))))
        self.log_rate = nnx.Param(jnp.log(jnp.linspace(1.0, 16.0, self.heads)))
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)
        self.nearby = nnx.Linear(width, self.heads, rngs=rngs)
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
            "window": ops.window_state(batch, self.heads, self.key_dim, self.value_dim, 32),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v, state["recent"] = self.project(x, state["recent"])
        q, k = self.normalize(q, k)
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        y, state["window"] = self.look_back(x, q, k, v, y, state["window"])
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
        return jax.nn.sigmoid(self.strength(x))

    def update(self, x, q, k, v, memory):
        beta = self.write_strength(x)
        return ops.delta_rule(q, k, v, beta, log_decay=self.log_decay(x), initial_state=memory)

    def look_back(self, x, q, k, v, y, window):
        q, k = ops.rms_norm(q), ops.rms_norm(k)
        near, window = ops.sliding_window_attention(q, k, v, window=32, initial_state=window)
        share = jax.nn.sigmoid(self.nearby(x))[..., None]
        return share * near + (1.0 - share) * y, window

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)
