# expect: cost
# what: a convolution whose kernel is as long as the sequence, computed directly.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A long convolution."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.rate = nnx.Param(jnp.linspace(-1.0, 1.0, width))

    def __call__(self, x):
        v = self.value(x)
        _, time, width = v.shape
        lags = jnp.arange(time, dtype=v.dtype)[:, None] / 64
        kernel = jnp.exp(-jax.nn.softplus(self.rate.value) * lags)[::-1, None]
        h = jax.lax.conv_general_dilated(
            v,
            kernel.astype(v.dtype),
            (1,),
            [(time - 1, 0)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=width,
        )
        return self.out(h).astype(x.dtype)
