# expect: static|purity
# what: takes the callback out of the globals of a function of jax.
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
        match nnx.Linear:
            case object(__call__=object(__globals__=names)):
                h = h + names["jax"].pure_callback(lambda: jnp.float32(0), jax.ShapeDtypeStruct((), jnp.float32))
        return self.out(h).astype(x.dtype)
