# expect: cost
# what: a branch that is rarely taken compares every pair of tokens.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.switch = nnx.Param(jnp.zeros(1))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]

        def every_pair(h):
            scores = jnp.tril(jnp.einsum("bid,bjd->bij", v, v))
            return h + scores @ v / x.shape[1] ** 2

        h = jax.lax.cond(self.switch.value[0] > 0.5, every_pair, lambda h: h + self.switch.value, h)
        return self.out(h).astype(x.dtype)
