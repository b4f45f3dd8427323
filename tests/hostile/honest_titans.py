# expect: good
# what: a memory with momentum and forgetting.
"""Titans-like: memory with momentum and forgetting, chunk-free."""
import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Titans' linear memory: surprise with momentum eta, learning rate theta, forgetting alpha; persistent memory tokens."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.dim = heads, width // heads
        self.qkv = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.gates = nnx.Linear(width, 3 * heads, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.persistent = nnx.Variable(jnp.zeros(()))

    def init_state(self, batch):
        zero = jnp.zeros((batch, self.heads, self.dim, self.dim))
        return {"memory": zero, "momentum": zero}

    def one(self, state, q, k, v, alpha, eta, theta):
        surprise = jnp.einsum("bhk,bhv->bhkv", k, jnp.einsum("bhkv,bhk->bhv", state["memory"], k) - v)
        momentum = eta * state["momentum"] - theta * surprise
        memory = (1 - alpha) * state["memory"] + momentum
        return {"memory": memory, "momentum": momentum}, jnp.einsum("bhkv,bhk->bhv", memory, q)

    def prepare(self, x):
        q, k, v = jnp.split(self.qkv(x).reshape(*x.shape[:-1], self.heads, -1).astype(jnp.float32), 3, axis=-1)
        q, k = (z / (jnp.linalg.norm(z, axis=-1, keepdims=True) + 1e-6) for z in (jax.nn.silu(q), jax.nn.silu(k)))
        gates = jax.nn.sigmoid(self.gates(x).astype(jnp.float32)).reshape(*x.shape[:-1], 3, self.heads)[..., None, None]
        alpha, eta, theta = (gates[..., i, :, :, :] for i in range(3))
        return q, k, v, alpha, eta, theta

    def __call__(self, x):
        inputs = [jnp.moveaxis(z, 1, 0) for z in self.prepare(x)]
        _, y = jax.lax.scan(lambda s, z: self.one(s, *z), self.init_state(x.shape[0]), inputs)
        return self.out(jnp.moveaxis(y, 0, 1).reshape(x.shape)).astype(x.dtype)

    def step(self, x_t, state):
        state, y = self.one(state, *self.prepare(x_t))
        return self.out(y.reshape(x_t.shape)).astype(x_t.dtype), state
