"""Position: what tells queries and keys how far apart they are, besides decay and convolution."""

# mypy: ignore-errors
import jax.numpy as jnp

from search_spaces.linear_attention import ops


class Off:
    """No positions: order shows through decay and neighbours alone."""


class Rotary:
    """Rotary positions: queries and keys turn with time, so that a match also depends on the distance (RetNet)."""

    # Else the scores would depend on where in the sequence they are.
    needs = ("heads decay as one", "keys met whole")

    def init_state(self, batch):
        return {"position": jnp.zeros((batch,), jnp.int32)}

    def rotate(self, q, k, position):
        return ops.rotary(q, position), ops.rotary(k, position), position + q.shape[1]
