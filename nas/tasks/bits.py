"""Bits per byte of text, whatever the tokens are: the bits of all scored tokens over the bytes that they stand for.

A token that stands for no text, as one that marks the end of a document, counts in neither (nanochat's rule,
https://github.com/karpathy/nanochat). So a tokenizer with longer tokens does not look better for having fewer of them.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer


def bits_of_windows(
    bits: Float[Array, "batch time"], targets: Integer[Array, "batch time"], token_bytes: np.ndarray
) -> Float[Array, " batch"]:
    """Bits of each window's scored tokens together.

    Args:
      bits: of each token of `targets` under a model.
      token_bytes: how many bytes each token stands for: uint16 [vocabulary].
    """
    if token_bytes.all():
        return bits.sum(axis=1)
    return jnp.where(jnp.asarray(token_bytes > 0)[targets], bits, 0).sum(axis=1)


def bits_per_byte(bits: np.ndarray, windows: np.ndarray, token_bytes: np.ndarray) -> tuple[float, float]:
    """(bits per byte, its standard error over windows); nan where a window has no finite bits, or none has text.

    The standard error is that of a ratio of two means, since windows of as many tokens have more or less text.

    Args:
      bits: of each window's scored tokens: float64 [windows].
      windows: tokens [windows, time + 1], of which all but the first of each are scored.
    """
    bytes_ = token_bytes[windows[:, 1:]].sum(axis=1, dtype=np.float64)
    if not bytes_.sum() or not np.isfinite(bits).all():
        return math.nan, math.nan
    ratio = bits.sum() / bytes_.sum()
    residuals = bits - ratio * bytes_
    return float(ratio), float(residuals.std(ddof=1) / (bytes_.mean() * math.sqrt(len(bits))))
