"""Small layers around a state update: normalisations, output gates, and the short convolution."""

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


def gated_rms_norm(
    y: Float[Array, "*batch dim"], scale: Float[Array, "..."], gate: Float[Array, "*batch dim"]
) -> Float[Array, "*batch dim"]:
    """`rms_norm(y) * scale * gate`: what most mixers read out of their state, head by head.

    Args:
      scale: learned, of shape `[dim]` or `[heads, dim]`.
      gate: already through its function of the token: silu (RetNet, GLA, Gated DeltaNet), sigmoid (KDA, xLSTM).
    """
    return (rms_norm(y) * scale * gate).astype(y.dtype)


def layer_norm(x: Float[Array, "*batch dim"], epsilon: float = 1e-5) -> Float[Array, "*batch dim"]:
    """`(x - mean) / sqrt(variance + epsilon)` over the last axis (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Of `[..., heads, dim]` it is the group norm per head that RWKV and RetNet read out with.
    """
    centred = x.astype(jnp.float32)
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + epsilon)).astype(x.dtype)


def short_convolution(
    x: Float[Array, "batch time channels"],
    kernel: Float[Array, "size channels"],
    recent: Float[Array, "batch _ channels"],
) -> tuple[Float[Array, "batch time channels"], Float[Array, "batch _ channels"]]:
    """Causal depthwise convolution: `y_t = sum_i kernel_i x_{t - size + 1 + i}`, each channel on its own.

    Args:
      kernel: the last row meets the present token.
      recent: the last `size - 1` inputs before `x`; zeros where there were none.

    Returns:
      The convolved sequence in the dtype of `x`, and what `recent` is for the next call.
    """
    time = x.shape[1]
    padded = jnp.concatenate([recent.astype(x.dtype), x], axis=1)
    # A sum of shifted products fuses into one loop; a depthwise `lax.conv` on CPU does not.
    kernel = kernel.astype(x.dtype)
    y = sum((padded[:, i : i + time] * kernel[i] for i in range(kernel.shape[0])), start=jnp.zeros_like(x))
    return y, padded[:, time:].astype(recent.dtype)


class ShortConvolution(nnx.Module):
    """`short_convolution` with a kernel that is learned; its state is the last `size - 1` inputs."""

    def __init__(self, channels: int, size: int, *, rngs: nnx.Rngs):
        self.channels, self.size = channels, size
        # The present token passes at full strength, so that a fresh mixer sees what it would see without convolution.
        past = jax.random.uniform(rngs.params(), (size - 1, channels), minval=-0.5, maxval=0.5) * size**-0.5
        self.kernel = nnx.Param(jnp.concatenate([past, jnp.ones((1, channels))]))

    def __call__(
        self, x: Float[Array, "batch time channels"], recent: Float[Array, "batch _ channels"]
    ) -> tuple[Float[Array, "batch time channels"], Float[Array, "batch _ channels"]]:
        """The convolved sequence in the dtype of `x`, and the inputs that the next call needs."""
        return short_convolution(x, self.kernel[...], recent)

    def init_state(self, batch: int) -> Float[Array, "batch _ channels"]:
        """No past: zeros."""
        return jnp.zeros((batch, self.size - 1, self.channels), jnp.float32)
