# expect: cost
# what: linear attention in eight chunks, however long the sequence is.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean in chunks."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        batch, time, width = v.shape
        size = max(1, -(-time // 8))
        chunks = jnp.pad(v, ((0, 0), (0, 8 * size - time), (0, 0))).reshape(batch, 8, size, width)
        inside = jnp.tril(jnp.ones((size, size), v.dtype)) @ chunks
        before = jnp.cumsum(chunks.sum(axis=2), axis=1) - chunks.sum(axis=2)
        h = (inside + before[:, :, None]).reshape(batch, -1, width)[:, :time]
        h = h / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
