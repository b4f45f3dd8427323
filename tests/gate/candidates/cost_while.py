# expect: cost
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A loop until convergence."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = jax.lax.stop_gradient(jax.lax.while_loop(lambda s: jnp.abs(s).max() > 10.0, lambda s: s * 0.5, h)) * 0 + h
        return self.out(h).astype(x.dtype)
