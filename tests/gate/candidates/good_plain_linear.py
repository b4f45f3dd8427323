# expect: good
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean through Flax's own layers, which answer bfloat16 with float32: what a person writes first."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        return self.mix(jnp.cumsum(x, axis=1) / (1.0 + jnp.arange(x.shape[1])[:, None]))
