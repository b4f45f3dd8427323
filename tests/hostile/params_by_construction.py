# expect: contract|purity|static
# what: has more parameters from its fourth construction on.
import jax
import jax.numpy as jnp
from flax import nnx

built = []


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        built.append(1)
        self.bank = nnx.Param(jax.random.normal(rngs.params(), (width, width * (1 + 30 * (len(built) > 3)))))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + v @ self.bank.value[:, : v.shape[-1]]
        return self.out(h).astype(x.dtype)
