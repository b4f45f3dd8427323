# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A scan in logarithmic depth, negative eigenvalues included."""

    def __init__(self, width, heads, *, rngs):
        self.gate = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        decay = jnp.tanh(self.gate(x)).astype(jnp.float32)

        def combine(first, second):
            return first[0] * second[0], first[1] * second[0] + second[1]

        h = jax.lax.associative_scan(combine, (decay, v.astype(jnp.float32)), axis=1)[1]
        return self.out(h).astype(x.dtype)
