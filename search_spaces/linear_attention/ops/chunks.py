"""What the chunk-parallel forms share: cutting time into chunks, and products of decays inside one.

Inside a chunk, `G_i = g_1 + ... + g_i` is the log decay from the chunk's start to the end of token i. A chunked array
is `[chunks, batch, heads, chunk, dim]`; a log decay per head has dim 1, so that both kinds of decay read the same.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def chunk_length(time: int, chunk: int | None) -> int:
    """`chunk`, or the next power of two above a shorter sequence.

    The default is 32 on CPU, measured on one core (forward and backward, T 256, 4 heads, dim 32), and elsewhere 64,
    which fills a matrix unit.

    Raises:
      ValueError: if `chunk` is no power of two: blocks inside a chunk are halved down to one token.
    """
    if chunk is None:
        chunk = 32 if jax.default_backend() == "cpu" else 64
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk={chunk} is not a power of two")
    return min(chunk, 1 << (time - 1).bit_length())


def into_chunks(x: Float[Array, "batch time heads ..."], chunk: int) -> Float[Array, "chunks batch heads chunk dim"]:
    """Cuts time into chunks, in float32. Padding is zero: no key, no value, no write strength and no decay."""
    batch, time, heads = x.shape[:3]
    x = x.reshape(batch, time, heads, -1).astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (0, -time % chunk), (0, 0), (0, 0)))
    return x.reshape(batch, -1, chunk, heads, x.shape[-1]).transpose(1, 0, 3, 2, 4)


def from_chunks(
    x: Float[Array, "chunks batch heads chunk dim"], like: Float[Array, "batch time heads dim"]
) -> Float[Array, "batch time heads dim"]:
    """The inverse of `into_chunks`, with the length and the dtype of `like`."""
    x = x.transpose(1, 0, 3, 2, 4)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, : like.shape[1]].astype(like.dtype)


def cumulative(log_decay: Float[Array, "*batch chunk dim"]) -> Float[Array, "*batch chunk dim"]:
    """`G_i = g_1 + ... + g_i`, as one small product: a windowed sum is slower to compile and to run."""
    ones = jnp.tril(jnp.ones((log_decay.shape[-2],) * 2, jnp.float32))
    return jnp.einsum("ij,...jd->...id", ones, log_decay, precision=lax.Precision.HIGHEST)


def causal_scores(
    a: Float[Array, "*batch chunk dim"],
    k: Float[Array, "*batch chunk dim"],
    total: Float[Array, "*batch chunk _"] | None,
) -> Float[Array, "*batch chunk chunk"]:
    """`A_ij = sum_d a_id k_jd exp(G_id - G_jd)` for i >= j, else 0, with `total` = G."""
    if total is not None and total.shape[-1] > 1:
        return _scores_per_channel(a, k, total)
    causal = jnp.tril(jnp.ones((a.shape[-2],) * 2, bool))
    scores = a @ k.mT
    if total is None:
        return jnp.where(causal, scores, 0.0)
    # Masked before exp: above the diagonal the exponent is positive, and inf * 0 is NaN in the gradient.
    return scores * jnp.exp(jnp.where(causal, total - total.mT, -jnp.inf))


def _scores_per_channel(
    a: Float[Array, "*batch chunk dim"], k: Float[Array, "*batch chunk dim"], total: Float[Array, "*batch chunk dim"]
) -> Float[Array, "*batch chunk chunk"]:
    """Scores by bisection: a pair of blocks of b tokens becomes one of 2b, until the chunk is one block.

    The block below the diagonal factorises around r, its first row: `(a_i exp(G_i - G_r)) . (k_j exp(G_r - G_j))`.
    Both exponents are <= 0 whatever the decay, which `exp(G_i) * exp(-G_j)` cannot promise.
    """
    *batch, chunk, dim = a.shape
    scores = jnp.sum(a * k, axis=-1)[..., None, None]  # chunk blocks of one token
    size = 1
    while size < chunk:
        pairs = (*batch, chunk // (2 * size), 2, size, dim)
        before, after = jnp.moveaxis(total.reshape(pairs), -3, 0)
        reference = after[..., :1, :]
        rows = a.reshape(pairs)[..., 1, :, :] * jnp.exp(after - reference)
        columns = k.reshape(pairs)[..., 0, :, :] * jnp.exp(reference - before)
        below = rows @ columns.mT
        scores = scores.reshape(*batch, -1, 2, size, size)
        first, second = scores[..., 0, :, :], scores[..., 1, :, :]
        scores = jnp.block([[first, jnp.zeros_like(below)], [below, second]])
        size *= 2
    return scores[..., 0, :, :]
