# expect: good
# what: memories of blocks at several scales.
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops

class TokenMixer(nnx.Module):
    """Log-linear attention-like: at every level of a Fenwick tree the last complete block's memory, weighted per token."""

    LEVELS = (1, 4, 16, 64)

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.level = nnx.Linear(width, len(self.LEVELS), rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        b, t, w = x.shape
        q, k, v = jnp.split(self.qkv(x).reshape(b, t, self.heads, -1).astype(jnp.float32), 3, axis=-1)
        k = jax.nn.softmax(k, -1)
        lam = jax.nn.softplus(self.level(x).astype(jnp.float32))
        out = 0.0
        for i, size in enumerate(self.LEVELS):
            n = -(-t // size)
            blocks = lambda z: jnp.pad(z, ((0, 0), (0, n * size - t), (0, 0), (0, 0))).reshape(b, n, size, self.heads, -1)
            s = jnp.einsum("bnchk,bnchv->bnhkv", blocks(k), blocks(v))
            s = jnp.concatenate([jnp.zeros_like(s[:, :1]), s[:, :-1]], axis=1)
            y = jnp.einsum("bnchk,bnhkv->bnchv", blocks(q), s).reshape(b, n * size, self.heads, -1)[:, :t]
            out = out + lam[..., i, None, None] * y
        return self.out(out.reshape(b, t, w)).astype(x.dtype)
