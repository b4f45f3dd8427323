"""Layout: how a width is divided into heads, keys and values. The state of a head is key_dim x value_dim."""

# mypy: ignore-errors
from flax import nnx


class Square:
    """Square heads: as many channels for keys as for values is the common default."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, width // heads


class ValueExpansion:
    """Values twice as wide: a larger state for the same keys (RetNet, Mamba2)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // heads, 2 * width // heads


class HalfKeys:
    """Keys half as wide: a cheaper state, whose parameters the MLP can have instead (GLA)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // (2 * heads), width // heads


class HalfKeysValueExpansion:
    """Keys half and values twice as wide: the state keeps its size and reads out more channels."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = heads, width // (2 * heads), 2 * width // heads


class MoreHeads:
    """Twice as many heads: more memories that forget and write on their own, each of a quarter of the usual size."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = 2 * heads, width // (2 * heads), width // (2 * heads)


class FewerHeads:
    """Half as many heads: fewer memories, each of four times the usual size, so that keys collide less."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads, self.key_dim, self.value_dim = max(heads // 2, 1), 2 * width // heads, 2 * width // heads
