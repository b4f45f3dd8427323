"""Readout: what happens to the state's output before it leaves the mixer."""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx

from search_spaces.linear_attention import ops


class Plain:
    """Plain readout: the heads' outputs are mixed as they are."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.output = nnx.Linear(self.heads * self.value_dim, width, use_bias=False, rngs=rngs)

    def readout(self, x, y):
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)


class Norm(Plain):
    """RMS norm on the output: its scale no longer grows with what the state has gathered (RetNet)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))

    def readout(self, x, y):
        y = ops.rms_norm(y) * self.scale[...]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)


class SiluGate(Norm):
    """SiLU-gated RMS norm on the output: each token chooses which of the memory's channels it lets through (GLA)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)


class SigmoidGate(Norm):
    """Sigmoid-gated RMS norm on the output: a gate that can close a channel but not amplify it (KDA)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(width, self.heads * self.value_dim, rngs=rngs)

    def readout(self, x, y):
        y = (ops.rms_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.sigmoid(self.gate(x))).astype(x.dtype)


class HeadGate(Norm):
    """Gate per head after RMS norm: a whole memory is let through or not, for the price of one number per head."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(width, self.heads, rngs=rngs)

    def readout(self, x, y):
        y = ops.rms_norm(y) * self.scale[...] * jax.nn.sigmoid(self.gate(x))[..., None]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)


class LayerNorm(Plain):
    """Layer norm per head on the output: neither its scale nor its mean grows with what the state has gathered
    (RWKV)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones((self.heads, self.value_dim)))

    def readout(self, x, y):
        y = ops.layer_norm(y) * self.scale[...]
        return self.output(y.reshape(*x.shape[:2], -1)).astype(x.dtype)


class LayerNormGate(LayerNorm):
    """SiLU-gated layer norm on the output: each token chooses what it lets through, with the mean taken out (RWKV6)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(width, self.heads * self.value_dim, use_bias=False, rngs=rngs)

    def readout(self, x, y):
        y = (ops.layer_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.silu(self.gate(x))).astype(x.dtype)


class LowRankGate(LayerNorm):
    """Sigmoid gate of low rank after layer norm: nearly the choice of a full gate, for a few parameters (RWKV7)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.gate_down = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.gate_up = nnx.Linear(16, self.heads * self.value_dim, rngs=rngs)

    def readout(self, x, y):
        y = (ops.layer_norm(y) * self.scale[...]).reshape(*x.shape[:2], -1)
        return self.output(y * jax.nn.sigmoid(self.gate_up(self.gate_down(x)))).astype(x.dtype)
