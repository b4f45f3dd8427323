# expect: good
# what: a minimal LSTM in log space.
"""minLSTM (Feng et al. 2024), parallel in log space."""
import jax
import jax.numpy as jnp
from flax import nnx


def g(x):
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


def log_g(x):
    return jnp.where(x >= 0, jnp.log(jax.nn.relu(x) + 0.5), -jax.nn.softplus(-x))


def parallel_scan_log(log_coeffs, log_values):
    """log_coeffs: [b, t, d]; log_values: [b, t + 1, d]."""
    a_star = jnp.pad(jnp.cumsum(log_coeffs, axis=1), ((0, 0), (1, 0), (0, 0)))
    log_h0_plus_b_star = jax.lax.cumlogsumexp(log_values - a_star, axis=1)
    return jnp.exp(a_star + log_h0_plus_b_star)[:, 1:]


class TokenMixer(nnx.Module):
    """minLSTM: forget and input gates of the input alone, normalised, computed in parallel in log space."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.width = width
        self.f = nnx.Linear(width, width, rngs=rngs)
        self.i = nnx.Linear(width, width, rngs=rngs)
        self.h = nnx.Linear(width, width, rngs=rngs)
        self.o = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        xf = x.astype(jnp.float32)
        diff = jax.nn.softplus(-self.f(xf)) - jax.nn.softplus(-self.i(xf))
        log_f, log_i = -jax.nn.softplus(diff), -jax.nn.softplus(-diff)
        log_h0 = jnp.full((x.shape[0], 1, self.width), jnp.log(0.5))
        log_v = jnp.concatenate([log_h0, log_i + log_g(self.h(xf))], axis=1)
        return self.o(parallel_scan_log(log_f, log_v)).astype(x.dtype)

    def init_state(self, batch):
        return jnp.full((batch, self.width), 0.5)

    def step(self, x_t, state):
        xf = x_t.astype(jnp.float32)
        f, i = jax.nn.sigmoid(self.f(xf)), jax.nn.sigmoid(self.i(xf))
        h = f / (f + i) * state + i / (f + i) * g(self.h(xf))
        return self.o(h).astype(x_t.dtype), h
