# expect: cost
# what: a scan over keys inside a scan over queries: softmax attention in constant memory.
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Attention one pair at a time."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        q, k = self.query(x), self.key(x)
        time = jnp.arange(x.shape[1])

        def one_query(_, query):
            t, q_t = query

            def one_key(sums, key):
                s, k_s, v_s = key
                weight = jnp.where(s <= t, jnp.exp(jnp.tanh(jnp.sum(q_t * k_s, axis=-1, keepdims=True))), 0)
                return (sums[0] + weight * v_s, sums[1] + weight), None

            zeros = jnp.zeros_like(q_t, jnp.float32), jnp.zeros_like(q_t[:, :1], jnp.float32)
            (top, bottom), _ = jax.lax.scan(one_key, zeros, (time, jnp.swapaxes(k, 0, 1), jnp.swapaxes(v, 0, 1)))
            return None, top / bottom

        _, h = jax.lax.scan(one_query, None, (time, jnp.swapaxes(q, 0, 1)))
        h = jnp.swapaxes(h, 0, 1)
        return self.out(h).astype(x.dtype)
