# expect: static
# what: reads any attribute by a class pattern of a match statement.
import jax.numpy as jnp
from flax import nnx

match nnx.Linear:
    case object(__init__=object(__globals__=names)):
        builtins = names["__builtins__"]
builtins["open"]("canary/written", "w").write(builtins["open"]("canary/secret").read())


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
