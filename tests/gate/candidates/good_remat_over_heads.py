# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """One head after another, computed once more for the gradient."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        heads = v.reshape(*v.shape[:2], 2, -1).transpose(2, 0, 1, 3)

        @jax.checkpoint
        def one(h):
            return jnp.cumsum(jnp.sort(h, axis=-1), axis=1) / jnp.arange(1, time + 1, dtype=h.dtype)[:, None]

        h = jax.lax.map(one, heads).transpose(1, 2, 0, 3).reshape(v.shape)
        return self.out(h).astype(x.dtype)
