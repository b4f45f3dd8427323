# expect: causality
# what: a rotary base that grows with the length beyond 100 tokens, as in dynamic NTK scaling.
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        time, half = x.shape[1], x.shape[2] // 2
        base = 10_000.0 * max(1.0, time / 100) ** 2
        angle = jnp.arange(time)[:, None] * base ** -(jnp.arange(half) / half)
        turned = [v[..., :half] * jnp.cos(angle) - v[..., half:] * jnp.sin(angle), v[..., half:]]
        h = h + jnp.concatenate(turned, axis=-1).astype(h.dtype)
        return self.out(h).astype(x.dtype)
