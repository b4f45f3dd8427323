# expect: cost
# what: scores every block of 64 tokens against every other: quadratic with a factor of 1/4096.
import jax
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
        blocks = jnp.pad(v, ((0, 0), (0, -time % 64), (0, 0))).reshape(batch, -1, 64, width).mean(axis=2)
        number = blocks.shape[1]
        queries = jnp.pad(blocks, ((0, 0), (1, 0), (0, 0)))[:, :number]
        scores = jnp.einsum("bid,bjd->bij", queries, blocks)
        weights = jnp.where(jnp.tril(jnp.ones((number, number), bool), k=-1), jax.nn.sigmoid(scores), 0)
        h = h + jnp.repeat(weights @ blocks, 64, axis=1)[:, :time]
        return self.out(h).astype(x.dtype)
