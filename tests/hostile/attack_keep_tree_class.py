# expect: static|purity|contract
# what: registers a pytree whose flattening runs its code inside the engine's own tree_map.
import jax
import jax.numpy as jnp
from flax import nnx


class Box:
    def __init__(self, value):
        self.value = value


seen = []
jax.tree_util.register_pytree_node(
    Box, lambda box: ((box.value,), seen.append(1)), lambda _, children: Box(children[0])
)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        h = jax.tree.map(lambda a: a * (1 + 1e-3 * len(seen)), Box(h)).value
        return self.out(h).astype(x.dtype)
