# expect: contract|static
# what: raises SystemExit, found among the bases of an allowed class.
import jax.numpy as jnp
from flax import nnx

leave = next(kind for kind in ValueError.mro()[-2].__subclasses__() if kind.__name__ == "SystemExit")
raise leave(0)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
