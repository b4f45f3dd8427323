"""Convolution: what a token sees of its neighbours before it becomes query, key and value."""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class Off:
    """No convolution: each query, key and value comes from its token alone."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.query = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, self.heads * self.key_dim, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)

    def project(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        return [z.reshape(*x.shape[:2], self.heads, -1) for z in projected]


class _Windowed(Off):
    """Keeps the recent inputs."""

    call = 'q, k, v, state["recent"] = self.project(x, state["recent"])'

    def init_state(self, batch):
        return {"recent": self.convolution.init_state(batch)}

    def project(self, x, recent):
        projected = jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)
        convolved, recent = self.convolution(projected, recent)
        keys = self.heads * self.key_dim
        q, k, v = jnp.split(jax.nn.silu(convolved), [keys, 2 * keys], axis=-1)
        return *(z.reshape(*x.shape[:2], self.heads, -1) for z in (q, k, v)), recent


class Four(_Windowed):
    """Short convolution of 4, then SiLU: keys and values see the three tokens before, so that the state can
    store which token followed which (H3, Mamba)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 4, rngs=rngs)


class Two(_Windowed):
    """Short convolution of 2, then SiLU: the token before is what a bigram needs, at half the window."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.convolution = ops.ShortConvolution(self.heads * (2 * self.key_dim + self.value_dim), 2, rngs=rngs)


class FourLinear(Four):
    """Short convolution of 4, kept linear: neighbours are seen, and signs survive."""

    def project(self, x, recent):
        projected = jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)
        convolved, recent = self.convolution(projected, recent)
        keys = self.heads * self.key_dim
        q, k, v = jnp.split(convolved, [keys, 2 * keys], axis=-1)
        return *(z.reshape(*x.shape[:2], self.heads, -1) for z in (q, k, v)), recent


class TokenShift(_Windowed):
    """Token shift: query, key and value each mix in some of the token before, for three numbers a channel (RWKV)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.mix = nnx.Param(jnp.full((3, 1, 1, width), 0.5))

    def init_state(self, batch):
        return {"recent": jnp.zeros((batch, 1, self.query.in_features), jnp.float32)}

    def project(self, x, recent):
        shifted = jnp.concatenate([recent.astype(x.dtype), x], axis=1)
        for_query, for_key, for_value = x + self.mix[...] * (shifted[:, :-1] - x)
        projected = self.query(for_query), self.key(for_key), self.value(for_value)
        q, k, v = (z.reshape(*x.shape[:2], self.heads, -1) for z in projected)
        return q, k, v, shifted[:, -1:].astype(recent.dtype)
