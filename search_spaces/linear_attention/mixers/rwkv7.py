"""RWKV7, Goose (Peng et al. 2025, https://arxiv.org/abs/2503.14456).

    S_t = diag(w_t) S_{t-1} - (a_t * p_t) (p_t^T S_{t-1}) + k'_t v_t^T,    w_t = exp(-0.6065 sigmoid(.)),
    p_t = normalised k_t * xi,    k'_t = k_t (1 + (a_t - 1) alpha),    a_t = sigmoid(.) per channel
    y_t = (norm(S_t^T q_t) + (q_t . rho k_t) v_t) * gate(x_t)

Canonical: heads of 64, token shift, gates of low rank, the first layer's values mixed into the later ones'.
Simplified: no values from the first layer (a mixer sees no other layer), decay, rate and gate see the unshifted token,
the present token's bonus takes the key before its replacement and is added before the norm, and the gate of low rank
is a sigmoid.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """RWKV7: a delta rule that erases under one key, writes under another, and has a rate for every channel."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.rate_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.rate_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)
        self.removal = nnx.Param(jnp.ones((self.heads, self.key_dim)))
        self.replacement = nnx.Param(jnp.ones((self.heads, self.key_dim)))
        self.forget_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.forget_up = nnx.Linear(16, self.heads * self.key_dim, rngs=rngs)
        self.mix = nnx.Param(jnp.full((3, 1, 1, width), 0.5))
        self.current = nnx.Param(jnp.full((self.heads, self.key_dim), self.key_dim**-0.5))
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
        self.gate_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.gate_up = nnx.Linear(16, self.heads * self.value_dim, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {
            "memory": jnp.zeros((batch, self.heads, self.key_dim, self.value_dim), jnp.float32),
            "recent": jnp.zeros((batch, 1, self.query.in_features), jnp.float32),
        }

    def forward(self, x, state):
        state = dict(state)
        q, k, v, state["recent"] = self.project(x, state["recent"])
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        y = self.skip(q, k, v, y)
        return self.readout(x, y), state

    def project(self, x, recent):
        shifted = jnp.concatenate([recent.astype(x.dtype), x], axis=1)
        for_query, for_key, for_value = x + self.mix[...] * (shifted[:, :-1] - x)
        projected = self.query(for_query), self.key(for_key), self.value(for_value)
        q, k, v = (z.reshape(*x.shape[:2], self.heads, -1) for z in projected)
        return q, k, v, shifted[:, -1:].astype(recent.dtype)

    def log_decay(self, x):
        gate = self.forget_up(jnp.tanh(self.forget_down(x)))
        # 0.6065 is exp(-1/2); the offset starts the memory long.
        return -0.6065 * jax.nn.sigmoid(gate - 3.0).reshape(*x.shape[:2], self.heads, self.key_dim)

    def update(self, x, q, k, v, memory):
        rate = jax.nn.sigmoid(self.rate_up(self.rate_down(x))).reshape(k.shape)
        removed = ops.l2_normalize(k * self.removal[...])
        written = k * (1.0 + (rate - 1.0) * self.replacement[...])
        return ops.dplr(q, written, v, -removed, removed * rate, log_decay=self.log_decay(x), initial_state=memory)

    def skip(self, q, k, v, y):
        return y + jnp.sum(q * self.current[...] * k, axis=-1, keepdims=True) * v

    def readout(self, x, y):
        y = (ops.layer_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.sigmoid(self.gate_up(self.gate_down(x)))).astype(x.dtype)
