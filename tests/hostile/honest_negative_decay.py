# expect: good
# what: decays between -1 and 1: negative eigenvalues.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A gated recurrence with signed decays."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.decay = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        decay = jnp.tanh(self.decay(x))

        def combine(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        h = jax.lax.associative_scan(combine, (decay, v), axis=1)[1]
        return self.out(h).astype(x.dtype)
