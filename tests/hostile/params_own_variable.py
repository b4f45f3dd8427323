# expect: contract
# what: parameters in a variable type of its own: neither counted nor trained by the harness.
import jax
import jax.numpy as jnp
from flax import nnx


class Bank(nnx.Variable):
    pass


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.bank = Bank(jax.random.normal(rngs.params(), (width, 64 * width)))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = h + v @ self.bank.value.reshape(v.shape[-1], -1)[:, : v.shape[-1]]
        return self.out(h).astype(x.dtype)
