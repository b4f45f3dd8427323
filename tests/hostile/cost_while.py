# expect: cost
# what: sums up every prefix in a while loop, whose number of turns is not in the program.
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
        time, kept = jnp.arange(x.shape[1])[:, None], jax.lax.stop_gradient(v)

        def turn(state):
            t, sums = state
            prefix = jnp.sum(jnp.where(time <= t, kept, 0), axis=1, keepdims=True)
            return t + 1, jnp.where(time == t, prefix / (t + 1), sums)

        h = h + jax.lax.while_loop(lambda state: state[0] < x.shape[1], turn, (0, jnp.zeros_like(kept)))[1]
        return self.out(h).astype(x.dtype)
