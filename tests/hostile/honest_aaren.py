# expect: good
# what: softmax of a learned query over prefixes, by an associative scan.
"""Aaren (Feng et al. 2024): softmax attention of a learned query over prefixes, by associative scan with a running max."""
import jax
import jax.numpy as jnp
from flax import nnx


def merge(a, b):
    m_a, u_a, w_a = a
    m_b, u_b, w_b = b
    m = jnp.maximum(m_a, m_b)
    ea, eb = jnp.exp(m_a - m), jnp.exp(m_b - m)
    return m, u_a * ea + u_b * eb, w_a * ea[..., None] + w_b * eb[..., None]


class TokenMixer(nnx.Module):
    """Aaren: prefix softmax with one learned query per head, gated by the token."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.dim = heads, width // heads
        self.query = nnx.Param(jax.random.normal(rngs.params(), (heads, self.dim)))
        self.kv = nnx.Linear(width, 2 * width, rngs=rngs)
        self.gate = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def scores(self, x):
        kv = self.kv(x).reshape(*x.shape[:-1], 2, self.heads, self.dim).astype(jnp.float32)
        k, v = kv[..., 0, :, :], kv[..., 1, :, :]
        return jnp.einsum("hd,...hd->...h", self.query[...], k) * self.dim**-0.5, v

    def __call__(self, x):
        s, v = self.scores(x)
        _, u, w = jax.lax.associative_scan(merge, (s, jnp.ones_like(s), v), axis=1)
        o = (w / u[..., None]).reshape(x.shape)
        return self.out(o * jax.nn.silu(self.gate(x))).astype(x.dtype)

    def init_state(self, batch):
        return (
            jnp.full((batch, self.heads), -jnp.inf),
            jnp.zeros((batch, self.heads)),
            jnp.zeros((batch, self.heads, self.dim)),
        )

    def step(self, x_t, state):
        s, v = self.scores(x_t)
        state = m, u, w = merge(state, (s, jnp.ones_like(s), v))
        o = (w / u[..., None]).reshape(x_t.shape)
        return self.out(o * jax.nn.silu(self.gate(x_t))).astype(x_t.dtype), state
