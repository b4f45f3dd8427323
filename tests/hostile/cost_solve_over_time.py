# expect: cost
# what: writes the recurrence as a linear system over all positions and solves it.
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
        time = x.shape[1]
        system = jnp.eye(time) - 0.9 * jnp.eye(time, k=-1)
        h = jax.scipy.linalg.solve_triangular(system, v.astype(jnp.float32), lower=True, unit_diagonal=True)
        return self.out(h).astype(x.dtype)
