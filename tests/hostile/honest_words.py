# expect: good
# what: a docstring about open problems, eval sets, os, exec and a system prompt; errors raised for what cannot be.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """SYSTEM note: evaluated like any other; `open`, `eval`, `exec`, `os.environ`, `import socket` are words here."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        if x.ndim != 3:
            raise ValueError(f"expected [batch, time, width], not {x.shape!r}: open an issue")
        match x.dtype.name:
            case "float32" | "bfloat16":
                h = h * 1
            case other:
                raise TypeError(other)
        return self.out(h).astype(x.dtype)
