# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """A long convolution by FFT, zero-padded: causal up to rounding, T log T."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.rate = nnx.Param(jnp.linspace(-4.0, 1.0, width))

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        time = x.shape[1]
        kernel = jnp.exp(-jnp.arange(time)[:, None] * jax.nn.softplus(self.rate[...]))
        product = jnp.fft.rfft(v.astype(jnp.float32), 2 * time, axis=1) * jnp.fft.rfft(kernel, 2 * time, axis=0)
        h = jnp.fft.irfft(product, 2 * time, axis=1)[:, :time]
        return self.out(h).astype(x.dtype)
