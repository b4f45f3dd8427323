# expect: causality
import jax
import jax.numpy as jnp
from flax import nnx


@jax.custom_vjp
def mix(h):
    return h


def forward(h):
    return h, None


def backward(_, gradient):
    return (gradient + 0.1 * gradient.mean(1, keepdims=True),)


mix.defvjp(forward, backward)


class TokenMixer(nnx.Module):
    """Causal forward, but its gradient flows from the future."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = mix(h)
        return self.out(h).astype(x.dtype)
