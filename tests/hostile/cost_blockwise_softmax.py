# expect: cost
# what: softmax attention a block of queries at a time: no large intermediate, and still every pair.
import math

import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Attention in blocks."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        batch, time, width = v.shape
        pad = -time % 64
        q, k, u = (jnp.pad(z, ((0, 0), (0, pad), (0, 0))) for z in (self.query(x), self.key(x), v))

        def block(first, q):
            scores = jnp.einsum("bid,bjd->bij", q, k) / math.sqrt(width)
            later = jnp.arange(time + pad) > first + jnp.arange(64)[:, None]
            weights = jax.nn.softmax(jnp.where(later, -jnp.inf, scores), axis=-1)
            return first + 64, jnp.einsum("bij,bjd->bid", weights, u)

        _, h = jax.lax.scan(block, 0, jnp.moveaxis(q.reshape(batch, -1, 64, width), 1, 0))
        h = jnp.moveaxis(h, 0, 1).reshape(batch, -1, width)[:, :time]
        return self.out(h).astype(x.dtype)
