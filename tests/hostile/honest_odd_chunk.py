# expect: good
# what: chunks of 24 tokens, which divide no length that is tried.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        batch, time, width = v.shape
        chunks = jnp.pad(v, ((0, 0), (0, -time % 24), (0, 0))).reshape(batch, -1, 24, width)
        inside = jnp.einsum("ij,bcjw->bciw", jnp.tril(jnp.ones((24, 24), v.dtype)), chunks)
        before = jnp.cumsum(chunks.sum(axis=2), axis=1) - chunks.sum(axis=2)
        h = (inside + before[:, :, None]).reshape(batch, -1, width)[:, :time]
        h = h / jnp.arange(1, time + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
