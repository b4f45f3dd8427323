# expect: good
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Products in bfloat16 behind a convolution by FFT."""

    def __init__(self, width, heads, *, rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        time = v.shape[1]
        kernel = jnp.exp(-0.1 * jnp.arange(time, dtype=jnp.float32))
        spectrum = jnp.fft.rfft(v.astype(jnp.float32), 2 * time, axis=1)
        h = jnp.fft.irfft(spectrum * jnp.fft.rfft(kernel, 2 * time)[:, None], 2 * time, axis=1)[:, :time]
        h = h.astype(jnp.bfloat16) * v.astype(jnp.bfloat16)
        return self.out(h).astype(x.dtype)
