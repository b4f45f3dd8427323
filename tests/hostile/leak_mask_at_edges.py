# expect: causality
# what: a mask within chunks that is one too wide in the row before the last.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        batch, time, width = v.shape
        chunks = jnp.pad(v, ((0, 0), (0, -time % 32), (0, 0))).reshape(batch, -1, 32, width)
        mask = jnp.tril(jnp.ones((32, 32), v.dtype)).at[30, 31].set(1)
        h = h + jnp.einsum("ij,bcjw->bciw", mask / 32, chunks).reshape(batch, -1, width)[:, :time]
        return self.out(h).astype(x.dtype)
