# expect: static|purity
# what: a dictionary on a helper class is filled by the first call and read by the second.
import jax.numpy as jnp
from flax import nnx


class Memory:
    kept = {}  # noqa: RUF012


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        Memory.kept["scale"] = Memory.kept.get("scale", 1.0) * 1.01
        h = h * Memory.kept["scale"]
        return self.out(h).astype(x.dtype)
