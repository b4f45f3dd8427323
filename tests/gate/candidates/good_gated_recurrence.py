# expect: good
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Gated linear recurrence by a scan over time, state in float32."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.gate = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        f = jax.nn.sigmoid(self.gate(x)).astype(jnp.float32)

        def step(s, inputs):
            f_t, v_t = inputs
            s = f_t * s + (1 - f_t) * v_t
            return s, s

        start = jnp.zeros((x.shape[0], x.shape[2]), jnp.float32)
        h = jax.lax.scan(step, start, (jnp.swapaxes(f, 0, 1), jnp.swapaxes(v, 0, 1).astype(jnp.float32)))[1]
        h = jnp.swapaxes(h, 0, 1)
        return self.out(h).astype(x.dtype)
