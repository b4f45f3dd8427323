"""Feature maps: what a query and a key become so that their dot product is a better score."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def hedgehog(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch features"]:
    """`softmax([z, -z])`, of twice the dimension (Hedgehog, Zhang et al. 2024, https://arxiv.org/abs/2402.04347).

    Positive, so that a normalised readout is a mean, and as spiky as `z` is large. Hedgehog learns a linear map before.
    """
    return jax.nn.softmax(jnp.concatenate([z, -z], axis=-1), axis=-1)


def taylor(z: Float[Array, "*batch dim"]) -> Float[Array, "*batch features"]:
    """Features whose dot product is `1 + s + s^2 / 2`, near `exp(s)` for `s = a . b`, and positive for every s.

    These are 1, z, and `z (x) z / sqrt(2)` with each symmetric pair taken once: `1 + dim + dim (dim + 1) / 2` of them
    (Based, Arora et al. 2024, https://arxiv.org/abs/2402.18668). For the scores of softmax attention, divide queries
    and keys by `dim ** 0.25` before, and do not scale after. It pays for a small dim: Based takes 16.
    """
    first, second = np.triu_indices(z.shape[-1])
    pairs = z[..., first] * z[..., second] * np.where(first == second, 0.5**0.5, 1.0).astype(z.dtype)
    return jnp.concatenate([jnp.ones_like(z[..., :1]), z, pairs], axis=-1)


def dpfp(z: Float[Array, "*batch dim"], shifts: int = 1) -> Float[Array, "*batch features"]:
    """Deterministic parameter-free projection (Schlag et al. 2021, https://arxiv.org/abs/2102.11174).

    With `r = relu([z, -z])`, the products `r_i r_(i-j)` for j = 1 ... `shifts`: `2 dim shifts` features, none negative,
    most of them zero. Opposite vectors have no feature in common.
    """
    r = jax.nn.relu(jnp.concatenate([z, -z], axis=-1))
    return jnp.concatenate([r * jnp.roll(r, shift, axis=-1) for shift in range(1, shifts + 1)], axis=-1)
