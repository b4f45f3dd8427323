# expect: good
# what: a fast weight that is trained token by token.
"""TTT-Linear (Sun et al. 2024) with an inner gradient step on every token, by jax.grad."""
import jax
import jax.numpy as jnp
from flax import nnx


def layer_norm(z, eps=1e-6):
    return (z - z.mean(-1, keepdims=True)) * jax.lax.rsqrt(z.var(-1, keepdims=True) + eps)


def inner_loss(w, k, v):
    return 0.5 * jnp.sum((layer_norm(k @ w) + k - v) ** 2)


class TokenMixer(nnx.Module):
    """TTT-Linear: the state is the weight of a linear model trained on the tokens as they come."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.dim = heads, width // heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.lr = nnx.Linear(width, heads, rngs=rngs)
        self.w0 = nnx.Param(0.02 * jax.random.normal(rngs.params(), (heads, self.dim, self.dim)))
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        b, t, d = x.shape
        q, k, v = jnp.split(self.qkv(x).reshape(b, t, self.heads, -1).astype(jnp.float32), 3, axis=-1)
        eta = jax.nn.sigmoid(self.lr(x)).astype(jnp.float32) / self.dim
        grad = jax.vmap(jax.vmap(jax.grad(inner_loss)))

        def tick(w, inputs):
            q, k, v, eta = inputs
            w = w - eta[..., None, None] * grad(w, k, v)
            return w, layer_norm(jnp.einsum("bhk,bhkv->bhv", q, w)) + q

        w0 = jnp.tile(self.w0[...][None], (b, 1, 1, 1))
        _, y = jax.lax.scan(tick, w0, tuple(z.swapaxes(0, 1) for z in (q, k, v, eta)))
        return self.out(y.swapaxes(0, 1).reshape(b, t, d)).astype(x.dtype)
