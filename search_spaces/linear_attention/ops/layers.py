"""Small layers around a state update: normalisations, and the short convolution."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


def l2_normalize(x: Float[Array, "*batch dim"], epsilon: float = 1e-6) -> Float[Array, "*batch dim"]:
    """`x / sqrt(|x|^2 + epsilon)` over the last axis: a unit vector, and zero for zero with a finite gradient."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * lax.rsqrt(squares + epsilon)).astype(x.dtype)


def rms_norm(x: Float[Array, "*batch dim"], epsilon: float = 1e-6) -> Float[Array, "*batch dim"]:
    """`x / sqrt(mean(x^2) + epsilon)` over the last axis (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    squares = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return (x * lax.rsqrt(squares + epsilon)).astype(x.dtype)


class ShortConvolution(nnx.Module):
    """Causal depthwise convolution: `y_t = sum_i kernel_i x_{t - size + 1 + i}`, each channel on its own.

    The last `size - 1` inputs are its state, so that it can go on where it stopped.
    """

    def __init__(self, channels: int, size: int, *, rngs: nnx.Rngs):
        self.channels, self.size = channels, size
        # The present token passes at full strength, so that a fresh mixer sees what it would see without convolution.
        past = jax.random.uniform(rngs.params(), (size - 1, channels), minval=-0.5, maxval=0.5) * size**-0.5
        self.kernel = nnx.Param(jnp.concatenate([past, jnp.ones((1, channels))]))

    def __call__(
        self, x: Float[Array, "batch time channels"], recent: Float[Array, "batch _ channels"]
    ) -> tuple[Float[Array, "batch time channels"], Float[Array, "batch _ channels"]]:
        """The convolved sequence in the dtype of `x`, and the inputs that the next call needs."""
        time = x.shape[1]
        padded = jnp.concatenate([recent.astype(x.dtype), x], axis=1)
        # A sum of shifted products fuses into one loop; a depthwise `lax.conv` on CPU does not.
        kernel = self.kernel[...].astype(x.dtype)
        y = sum((padded[:, i : i + time] * kernel[i] for i in range(self.size)), start=jnp.zeros_like(x))
        return y, padded[:, time:].astype(recent.dtype)

    def init_state(self, batch: int) -> Float[Array, "batch _ channels"]:
        """No past: zeros."""
        return jnp.zeros((batch, self.size - 1, self.channels), jnp.float32)
