# expect: parity|purity
# what: the state of a batch is the mean over the batch.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def init_state(self, batch):
        return jnp.zeros((batch, self.value.out_features)), jnp.zeros((batch,), jnp.float32)

    def step(self, x_t, state):
        total, count = state[0] + self.value(x_t), state[1] + 1
        total = jnp.mean(total, axis=0, keepdims=True) + 0 * total
        return self.out(total / count[:, None]).astype(x_t.dtype), (total, count)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
