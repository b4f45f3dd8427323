# expect: good
# what: attention within a block and the block before it.
"""Block-local attention, chunk 32: each token sees its own block up to itself and the whole previous block."""
import jax
import jax.numpy as jnp
from flax import nnx
from einops import rearrange, pack, unpack

C = 32
NEG = -1e9


class TokenMixer(nnx.Module):
    """Local attention with a one-block look-back, rotary inside."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.dim = heads, width // heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.rel = nnx.Embed(2 * C, heads, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        b, t, _ = x.shape
        pad = (-t) % C
        h = jnp.pad(x, ((0, 0), (0, pad), (0, 0)))
        q, k, v = rearrange(self.qkv(h), "b (n c) (s h d) -> s b n h c d", c=C, s=3, h=self.heads)
        back = lambda z: jnp.concatenate([jnp.pad(z, [(0, 0), (1, 0)] + [(0, 0)] * 3)[:, :-1], z], axis=-2)
        k, v = back(k), back(v)
        i, j = jnp.arange(C)[:, None] + C, jnp.arange(2 * C)[None, :]
        mask = (j <= i)[None] & ((jnp.arange(h.shape[1] // C) > 0)[:, None, None] | (j >= C)[None])
        bias = self.rel(jnp.clip(i - j, 0, 2 * C - 1))
        s = jnp.einsum("bnhid,bnhjd->bnhij", q, k).astype(jnp.float32) * self.dim**-0.5 + bias.transpose(2, 0, 1)
        a = jax.nn.softmax(jnp.where(mask[None, :, None], s, NEG), axis=-1)
        y = jnp.einsum("bnhij,bnhjd->bnhid", a, v)
        return self.out(rearrange(y, "b n h c d -> b (n c) (h d)")[:, :t]).astype(x.dtype)
