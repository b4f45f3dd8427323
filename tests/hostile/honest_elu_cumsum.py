# expect: good
# what: sums over time with a normaliser, after super().__init__().
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class TokenMixer(nnx.Module):
    """Linear transformer of Katharopoulos et al. 2020: elu(x) + 1, plain cumulative sums, with normaliser."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.q_proj = nnx.LinearGeneral(width, (heads, self.head_dim), rngs=rngs)
        self.k_proj = nnx.LinearGeneral(width, (heads, self.head_dim), rngs=rngs)
        self.v_proj = nnx.LinearGeneral(width, (heads, self.head_dim), rngs=rngs)
        self.o_proj = nnx.LinearGeneral((heads, self.head_dim), width, axis=(-2, -1), rngs=rngs)

    @staticmethod
    def feature_map(x: Array) -> Array:
        return jax.nn.elu(x) + 1.0

    def __call__(self, x: Array) -> Array:
        q = self.feature_map(self.q_proj(x))
        k = self.feature_map(self.k_proj(x))
        v = self.v_proj(x)
        kv = jnp.cumsum(jnp.einsum("bthk,bthv->bthkv", k, v), axis=1)
        z = 1.0 / (jnp.einsum("bthk,bthk->bth", q, jnp.cumsum(k, axis=1)) + 1e-6)
        y = jnp.einsum("bthk,bthkv,bth->bthv", q, kv, z)
        return self.o_proj(y).astype(x.dtype)

    def init_state(self, batch: int):
        return {
            "s": jnp.zeros((batch, self.num_heads, self.head_dim, self.head_dim)),
            "z": jnp.zeros((batch, self.num_heads, self.head_dim)),
        }

    def step(self, x_t: Array, state: dict) -> tuple[Array, dict]:
        q, k, v = self.feature_map(self.q_proj(x_t)), self.feature_map(self.k_proj(x_t)), self.v_proj(x_t)
        s = state["s"] + k[..., :, None] * v[..., None, :]
        z = state["z"] + k
        y = jnp.einsum("bhk,bhkv->bhv", q, s) / (jnp.einsum("bhk,bhk->bh", q, z) + 1e-6)[..., None]
        return self.o_proj(y).astype(x_t.dtype), {"s": s, "z": z}
