# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """The two best features of each token, summed over a window of eight."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        best = jax.lax.top_k(v, 2)[0].mean(axis=-1, keepdims=True)
        padded = jnp.pad(v * best, ((0, 0), (8, 0), (0, 0)))
        h = sum(padded[:, shift : shift + time] for shift in range(1, 9))
        return self.out(h).astype(x.dtype)
