# expect: static
# what: a name with two underscores, put together from single ones.
import jax.numpy as jnp
from flax import nnx

u = "_"
builtins = getattr(getattr(nnx.Linear, f"_{u}init_{u}"), f"_{u}globals_{u}")[f"{u}{u}builtins{u}{u}"]
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
