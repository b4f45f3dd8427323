# expect: static
# what: the same by format_map, on a template that is put together.
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
        template = "{0" + "._" + "_class_" + "_}"
        h = h * (1 + 1e-6 * len(str.format_map(template[:1] + "x" + template[2:], {"x": nnx.Linear})))
        return self.out(h).astype(x.dtype)
