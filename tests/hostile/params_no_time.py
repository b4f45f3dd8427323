# expect: contract|causality|purity|any
# what: a second MLP: it mixes channels and no two tokens.
import jax
from flax import nnx


class TokenMixer(nnx.Module):
    """A gated pointwise map."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jax.nn.gelu(v) * v
        return self.out(h).astype(x.dtype)
