# expect: any
# what: a derivative of a derivative, thirty deep: tracing it doubles each time.
import jax
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
        f = lambda a: jnp.tanh(a * jnp.sin(a))  # noqa: E731
        for _ in range(30):
            f = (lambda inner: lambda a: jax.grad(inner)(a) * inner(a))(f)
        h = h + f(h[0, 0, 0])
        return self.out(h).astype(x.dtype)
