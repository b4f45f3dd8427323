# expect: causality
# what: a decayed recurrence whose last head is scanned from the end.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A decayed sum of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)

        def step(state, value):
            state = 0.9 * state + value
            return state, state

        over_time = jnp.swapaxes(v, 0, 1)
        half = v.shape[-1] // 2
        _, forwards = jax.lax.scan(step, jnp.zeros_like(over_time[0, :, :half]), over_time[..., :half])
        _, backwards = jax.lax.scan(step, jnp.zeros_like(over_time[0, :, half:]), over_time[..., half:], reverse=True)
        h = jnp.swapaxes(jnp.concatenate([forwards, backwards], axis=-1), 0, 1)
        return self.out(h).astype(x.dtype)
