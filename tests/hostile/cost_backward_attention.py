# expect: cost
# what: linear forwards; backwards it computes softmax attention to correct the gradient.
import jax
import jax.numpy as jnp
from flax import nnx


@jax.custom_vjp
def corrected(v):
    return 0.1 * v


def backward(v, gradient):
    scores = jnp.triu(jnp.exp(jnp.tanh(jnp.einsum("bid,bjd->bij", v, v))))
    return (0.1 * gradient + 1e-3 * jnp.einsum("bij,bjd->bid", scores, gradient) / v.shape[1],)


corrected.defvjp(lambda v: (corrected(v), v), backward)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + corrected(v)
        return self.out(h).astype(x.dtype)
