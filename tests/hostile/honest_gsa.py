# expect: good
# what: slots that are gated and read by softmax.
"""Gated slot attention (Zhang et al. 2024) by scan."""
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """GSA: a two-pass gated linear attention over a fixed number of slots with a softmax between."""

    SLOTS = 8

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.h, self.d = heads, width // heads
        self.q, self.k, self.v = (nnx.Linear(width, width, use_bias=False, rngs=rngs) for _ in range(3))
        self.f = nnx.Linear(width, heads * self.SLOTS, rngs=rngs)
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.o = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def init_state(self, batch):
        return tuple(jnp.zeros((batch, self.h, self.SLOTS, self.d), jnp.float32) for _ in range(2))

    def project(self, x):
        shape = (*x.shape[:-1], self.h, -1)
        q, k, v = (jax.nn.silu(p(x)).reshape(shape).astype(jnp.float32) for p in (self.q, self.k, self.v))
        alpha = (jax.nn.sigmoid(self.f(x).astype(jnp.float32)) ** (1 / 8)).reshape(shape)
        return q, k, v, alpha

    def tick(self, state, inputs):
        K, V = state
        q, k, v, a = inputs
        K = a[..., None] * K + (1 - a)[..., None] * k[..., None, :]
        V = a[..., None] * V + (1 - a)[..., None] * v[..., None, :]
        p = jax.nn.softmax(jnp.einsum("bhmd,bhd->bhm", K, q) * self.d**-0.5, axis=-1)
        return (K, V), jnp.einsum("bhm,bhmd->bhd", p, V)

    def __call__(self, x):
        xs = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), self.project(x))
        _, y = jax.lax.scan(self.tick, self.init_state(x.shape[0]), xs, unroll=4)
        return self.o(self.norm(jnp.moveaxis(y, 0, 1).reshape(x.shape))).astype(x.dtype)

    def step(self, x_t, state):
        state, y = self.tick(state, self.project(x_t))
        return self.o(self.norm(y.reshape(x_t.shape))).astype(x_t.dtype), state
