# expect: good
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Mean of the past."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)

    def init_state(self, batch):
        return jnp.zeros((batch, self.out.in_features)), jnp.zeros((), jnp.int32)

    def step(self, x_t, state):
        total, count = state
        total = total + self.value(x_t)
        count = count + 1
        return self.out(total / count).astype(x_t.dtype), (total, count)
