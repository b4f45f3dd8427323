# expect: good
# what: a diagonal recurrence with complex eigenvalues.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A complex diagonal recurrence."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.damping = nnx.Param(jnp.full((width,), -2.0))
        self.angle = nnx.Param(jnp.linspace(0.0, 3.0, width))

    def __call__(self, x):
        v = self.value(x)
        rate = jnp.exp(-jax.nn.softplus(self.damping.value) + 1j * self.angle.value)

        def step(state, value):
            state = rate * state + value
            return state, state.real

        start = jnp.zeros((x.shape[0], v.shape[-1]), jnp.complex64)
        h = jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(v, 0, 1))[1], 0, 1)
        return self.out(h).astype(x.dtype)
