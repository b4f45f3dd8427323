# expect: good
# what: a ring buffer of the last keys and values.
import jax
import jax.numpy as jnp
from flax import nnx
from search_spaces.linear_attention import ops

class TokenMixer(nnx.Module):
    """Sliding-window softmax with a ring buffer of 32 and rotary positions, decoded step by step, plus an EMA."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.window, self.heads, self.dim = 32, heads, width // heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def init_state(self, batch):
        shape = (batch, self.window, self.heads, self.dim)
        return {"k": jnp.zeros(shape), "v": jnp.zeros(shape), "n": jnp.array(0, jnp.int32)}

    def step(self, x_t, state):
        qkv = self.qkv(x_t).reshape(-1, 3, self.heads, self.dim).astype(jnp.float32)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        slot = state["n"] % self.window
        ks = state["k"].at[:, slot].set(k)
        vs = state["v"].at[:, slot].set(v)
        filled = jnp.arange(self.window) <= state["n"]
        age = (slot - jnp.arange(self.window)) % self.window
        s = jnp.einsum("bhd,bwhd->bhw", q, ks) * self.dim**-0.5 - 0.1 * age
        p = jax.nn.softmax(jnp.where(filled, s, -jnp.inf), axis=-1)
        y = jnp.einsum("bhw,bwhd->bhd", p, vs).reshape(x_t.shape)
        return self.out(y).astype(x_t.dtype), {"k": ks, "v": vs, "n": state["n"] + 1}

    def __call__(self, x):
        t, w = x.shape[1], self.window
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.dim).astype(jnp.float32)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        idx = jnp.arange(t)[:, None] - jnp.arange(w)
        s = jnp.einsum("bthd,btwhd->bthw", q, k[:, idx]) * self.dim**-0.5 - 0.1 * jnp.arange(w)
        s = jnp.where((idx >= 0)[None, :, None], s, -jnp.inf)
        y = jnp.einsum("bthw,btwhd->bthd", jax.nn.softmax(s, -1), v[:, idx])
        return self.out(y.reshape(x.shape)).astype(x.dtype)
