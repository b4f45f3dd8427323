# expect: parity|cost|contract
# what: the state is a buffer of 65,536 tokens, and step sums up all of it.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def init_state(self, batch):
        return jnp.zeros((batch, 65_536, self.value.out_features)), jnp.zeros((), jnp.int32)

    def step(self, x_t, state):
        history, count = state
        history = jax.lax.dynamic_update_slice(history, self.value(x_t)[:, None].astype(history.dtype), (0, count, 0))
        y_t = self.out(history.sum(axis=1) / (count + 1))
        return y_t.astype(x_t.dtype), (history, count + 1)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
