# expect: good
# what: a shift by one token, with a step that answers in float32.
"""Nothing but token shift and gates."""
import jax, jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Half of the channels come from the previous token."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.a = nnx.Linear(width, width, rngs=rngs)
        self.b = nnx.Linear(width, width, rngs=rngs)

    def mix(self, x, previous):
        half = x.shape[-1] // 2
        z = jnp.concatenate([x[..., :half], previous[..., half:]], axis=-1)
        return self.a(z) * jax.nn.sigmoid(self.b(z))

    def __call__(self, x):
        previous = jnp.roll(x, 1, axis=1).at[:, 0].set(0.0)
        return self.mix(x, previous)

    def init_state(self, batch):
        return jnp.zeros((batch, self.a.in_features))

    def step(self, x_t, state):
        return self.mix(x_t, state.astype(x_t.dtype)).astype(x_t.dtype), x_t.astype(state.dtype)
