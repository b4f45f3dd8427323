# expect: cost
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Softmax attention."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        scores = jnp.einsum("btw,bsw->bts", v, v) / v.shape[-1] ** 0.5
        mask = jnp.tril(jnp.ones(scores.shape[1:], bool))
        h = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1) @ v
        return self.out(h).astype(x.dtype)
