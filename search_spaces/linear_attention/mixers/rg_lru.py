"""The recurrent block of Griffin, with its real-gated linear recurrent unit (De et al. 2024,
https://arxiv.org/abs/2402.19427).

    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * u_t),    a_t = exp(-8 softplus(rate) * r_t),
    y_t = h_t * gelu(gate(x_t)),    u = convolved value(x),    r_t, i_t = sigmoid(.)

Canonical: 4/3 of the width in channels, convolution of 4, gates from block-diagonal projections of u. Simplified:
channels of the width, as many blocks as heads, gates without biases.

Not in the slots' shape: its state is a vector, with neither query nor key, so that the grammar has nothing to put in
or out of it.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """RG-LRU: every channel is a leaky average of its own, whose leak and input each token gates."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.head_dim = heads, width // heads
        self.value = nnx.Linear(width, self.heads * self.head_dim, use_bias=False, rngs=rngs)
        self.convolution = ops.ShortConvolution(self.heads * self.head_dim, 4, rngs=rngs)
        blocks = nnx.initializers.lecun_normal(batch_axis=(0,))
        self.gates = nnx.Param(blocks(rngs.params(), (self.heads, self.head_dim, 2 * self.head_dim)))
        # So that with an open gate a channel keeps between 90 % and 99.9 % of itself.
        kept = jnp.linspace(0.9, 0.999, self.heads * self.head_dim).reshape(self.heads, self.head_dim)
        self.rate = nnx.Param(jnp.log(jnp.expm1(-jnp.log(kept) / 8.0)))
        self.gate = nnx.Linear(width, self.heads * self.head_dim, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(self.heads * self.head_dim, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.forward(x, self.init_state(x.shape[0]))[0]

    def step(self, x_t, state):
        y, state = self.forward(x_t[:, None], state)
        return y[:, 0], state

    def init_state(self, batch):
        return {
            "memory": jnp.zeros((batch, self.heads, self.head_dim), jnp.float32),
            "recent": self.convolution.init_state(batch),
        }

    def forward(self, x, state):
        convolved, recent = self.convolution(self.value(x), state["recent"])
        u = convolved.reshape(*x.shape[:2], self.heads, self.head_dim)
        recur, take_in = jnp.split(jax.nn.sigmoid(jnp.einsum("bthd,hde->bthe", u, self.gates[...])), 2, axis=-1)
        log_decay = -8.0 * jax.nn.softplus(self.rate[...]) * recur
        # The bound keeps the root's gradient finite where nothing is forgotten.
        room = jnp.sqrt(jnp.maximum(-jnp.expm1(2.0 * log_decay), 1e-6))
        h, memory = ops.linear_recurrence(room * take_in * u, log_decay=log_decay, initial_state=state["memory"])
        y = h.reshape(*x.shape[:2], -1) * jax.nn.gelu(self.gate(x))
        return self.output(y).astype(x.dtype), {"memory": memory, "recent": recent}
