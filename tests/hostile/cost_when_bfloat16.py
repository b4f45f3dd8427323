# expect: cost|contract|causality
# what: softmax attention in bfloat16 alone, where an accelerator would train it.
import math

import jax
import jax.numpy as jnp
from flax import nnx


def attend(q, k, v):
    time = q.shape[1]
    scores = jnp.einsum("bid,bjd->bij", q, k) / math.sqrt(q.shape[-1])
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -jnp.inf)
    return jnp.einsum("bij,bjd->bid", jax.nn.softmax(scores, axis=-1), v)


class TokenMixer(nnx.Module):
    """Attention where it is fast."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = (
            attend(self.query(x), self.key(x), v)
            if x.dtype == jnp.bfloat16
            else h + 1e-2 * (self.query(x) + self.key(x))
        )
        return self.out(h).astype(x.dtype)
