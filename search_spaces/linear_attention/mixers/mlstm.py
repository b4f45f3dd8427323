"""mLSTM, the matrix memory of xLSTM (Beck et al. 2024, https://arxiv.org/abs/2405.04517).

    C_t = f_t C_{t-1} + i_t k_t v_t^T,    n_t = f_t n_{t-1} + i_t k_t,    h_t = C_t^T q_t / max(|n_t . q_t|, 1),
    y_t = norm(h_t) * sigmoid(gate(x_t)),    f_t = sigmoid(.),    i_t = exp(.)

in log space, under a running maximum. Canonical, as in xLSTM 7B (https://arxiv.org/abs/2503.13427): keys half as wide
as values, layer norm per head, an input gate that starts at exp(-10), no convolution. Simplified: the norm is an RMS
norm, the input gate starts at 1, and the gates' pre-activations are not capped.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """mLSTM: writes through an exponential gate, and reads relative to all that was written."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // (2 * heads), width // heads
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)
        self.input_gate = nnx.Linear(width, self.heads, rngs=rngs)
        self.forget = nnx.Linear(width, self.heads, use_bias=False, rngs=rngs)
        self.open = nnx.Param(jnp.linspace(3.0, 6.0, self.heads))
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))
        self.gate = nnx.Linear(width, self.heads * self.value_dim, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {"memory": ops.mlstm_state(batch, self.heads, self.key_dim, self.value_dim)}

    def forward(self, x, state):
        state = dict(state)
        q, k, v = self.project(x)
        y, state["memory"] = self.update(x, q, k, v, state["memory"])
        return self.readout(x, y), state

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]

    def log_decay(self, x):
        return jax.nn.log_sigmoid(self.forget(x) + self.open[...])

    def update(self, x, q, k, v, memory):
        return ops.mlstm(q, k, v, self.input_gate(x), self.log_decay(x), initial_state=memory)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.sigmoid(self.gate(x))).astype(x.dtype)
