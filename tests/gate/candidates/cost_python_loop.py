# expect: cost
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A Python loop over time."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        s, states = jnp.zeros_like(v[:, 0]), []
        for t in range(x.shape[1]):
            for _ in range(4):
                s = 0.9 * s + jnp.tanh(v[:, t] * 0.1) + 0.01 * jnp.sin(s) * jnp.cos(s) + jnp.exp(-s * s)
            states.append(s)
        h = h + jnp.stack(states, 1)
        return self.out(h).astype(x.dtype)
