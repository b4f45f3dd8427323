# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Decayed cumulative sum: y_t = sum_{s<=t} a^(t-s) v_s, by an associative scan."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.decay = nnx.Param(jnp.linspace(0.0, 4.0, width))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        decay = jnp.broadcast_to(jax.nn.sigmoid(self.decay[...]), v.shape)
        h = jax.lax.associative_scan(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (decay, v), axis=1)[1]
        return self.out(h).astype(x.dtype)

    def init_state(self, batch):
        return jnp.zeros((batch, self.out.in_features))

    def step(self, x_t, state):
        state = jax.nn.sigmoid(self.decay[...]) * state + self.value(x_t)
        return self.out(state).astype(x_t.dtype), state
