# expect: good
# what: options in a frozen dataclass, and parameters named in a loop.
import dataclasses

import jax.numpy as jnp
from flax import nnx


@dataclasses.dataclass(frozen=True)
class Options:
    taps: int = 3


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.options = Options()
        for index in range(self.options.taps):
            setattr(self, f"tap_{index}", nnx.Param(jnp.full((width,), 0.5**index)))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        for index in range(self.options.taps):
            shifted = jnp.pad(v, ((0, 0), (index, 0), (0, 0)))[:, : x.shape[1]]
            h = h + getattr(self, f"tap_{index}").value * shifted
        return self.out(h).astype(x.dtype)
