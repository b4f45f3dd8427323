# expect: static|purity
# what: honest in its first traces, then it looks ahead: the gate is over by then.
import jax.numpy as jnp
from flax import nnx

calls = []


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        calls.append(1)
        if len(calls) > 40:
            h = h + jnp.roll(v, -1, axis=1)
        return self.out(h).astype(x.dtype)
