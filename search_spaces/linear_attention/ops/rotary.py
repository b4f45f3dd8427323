"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotary(
    x: Float[Array, "batch time heads dim"], start: int | Int[Array, ""] | Int[Array, " batch"], base: float = 10_000.0
) -> Float[Array, "batch time heads dim"]:
    """Rotates channels i and i + dim/2 together, as a point in the plane, by `(start + t) base^(-2i/dim)` radians.

    The score of a rotated query with a rotated key depends on the difference of their positions only. Angles are in
    float32: bfloat16 cannot tell position 257 from 256. Where `dim` is odd, the last channel stays as it is.

    Args:
      start: position of the first token, one for all or one per sequence of the batch.
      base: the slowest pair turns once in nearly `2 pi base` tokens.
    """
    pairs = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(pairs, dtype=jnp.float32) / max(pairs, 1))
    position = jnp.reshape(jnp.asarray(start), (-1, 1)) + jnp.arange(x.shape[1])
    angle = position[..., None, None].astype(jnp.float32) * frequency  # [batch or 1, time, 1, pairs]
    first, second, rest = jnp.split(x.astype(jnp.float32), [pairs, 2 * pairs], axis=-1)
    rotated = first * jnp.cos(angle) - second * jnp.sin(angle), first * jnp.sin(angle) + second * jnp.cos(angle)
    return jnp.concatenate([*rotated, rest], axis=-1).astype(x.dtype)
