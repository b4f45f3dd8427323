"""Hybrid: softmax attention over a short window beside the state; linear in time, with a cache of fixed size.

Between layers the backbone is the same everywhere, so that a hybrid is one inside the mixer.
"""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class Off:
    """No window: all of the past goes through the state."""


class Window:
    """Attention over the last 32 tokens, added: exact recall nearby, while the state keeps the rest (Based)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.nearby = nnx.Param(jnp.ones((self.heads, 1)))

    def init_state(self, batch):
        return {"window": ops.window_state(batch, self.heads, self.key_dim, self.value_dim, 32)}

    def look_back(self, x, q, k, v, y, window):
        q, k = ops.rms_norm(q), ops.rms_norm(k)
        near, window = ops.sliding_window_attention(q, k, v, window=32, initial_state=window)
        return y + self.nearby[...] * near, window


class GatedWindow:
    """Attention over the last 32 tokens, or the state: each token and head chooses how much of either (Hymba)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.nearby = nnx.Linear(width, self.heads, rngs=rngs)

    def init_state(self, batch):
        return {"window": ops.window_state(batch, self.heads, self.key_dim, self.value_dim, 32)}

    def look_back(self, x, q, k, v, y, window):
        q, k = ops.rms_norm(q), ops.rms_norm(k)
        near, window = ops.sliding_window_attention(q, k, v, window=32, initial_state=window)
        share = jax.nn.sigmoid(self.nearby(x))[..., None]
        return share * near + (1.0 - share) * y, window
