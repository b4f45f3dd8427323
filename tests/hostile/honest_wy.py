# expect: good
# what: the delta rule by a triangular solve, with an import from jax.scipy.linalg.
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops

from jax.scipy.linalg import solve_triangular

CHUNK = 16


class TokenMixer(nnx.Module):
    """DeltaNet in the WY form: a triangular system per chunk of 16, chunk states by scan."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.dim = heads, width // heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.beta = nnx.Linear(width, heads, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        b, t, w = x.shape
        pad = -t % CHUNK
        h = jnp.pad(x, ((0, 0), (0, pad), (0, 0))).astype(jnp.float32)
        n = (t + pad) // CHUNK
        fold = lambda z: z.reshape(b, n, CHUNK, self.heads, -1).transpose(1, 0, 3, 2, 4)
        q, k, v = map(fold, jnp.split(self.qkv(h), 3, -1))
        q, k = ops.l2_normalize(q), ops.l2_normalize(k)
        beta = fold(jax.nn.sigmoid(self.beta(h)))
        strict = jnp.tril(jnp.ones((CHUNK, CHUNK)), -1)
        a = jnp.eye(CHUNK) + strict * (beta * k @ k.swapaxes(-1, -2))
        u = solve_triangular(a, beta * v, lower=True)
        m = solve_triangular(a, beta * k, lower=True)

        def body(s, chunk):
            q, k, u, m = chunk
            new = u - m @ s
            y = q @ s + jnp.tril(q @ k.swapaxes(-1, -2)) @ new
            return s + k.swapaxes(-1, -2) @ new, y

        _, y = jax.lax.scan(body, jnp.zeros((b, self.heads, self.dim, self.dim)), (q, k, u, m))
        y = y.transpose(1, 0, 3, 2, 4).reshape(b, t + pad, w)[:, :t]
        return self.out(y).astype(x.dtype)
