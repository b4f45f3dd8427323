"""The backbone around a token mixer: equal for all, and of equal size for all.

Token embedding, `layers` x [RMSNorm, mixer, residual, RMSNorm, SwiGLU MLP, residual], RMSNorm, tied head. One layer
has `layer_params * width^2` parameters whatever the mixer: the MLP's hidden width takes up the difference.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from nas.settings import ModelSettings

VOCABULARY = 256  # bytes


class Mlp(nnx.Module):
    """SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202): `down(silu(gate(x)) * up(x))`."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(hidden, width, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        return self.down(nnx.silu(self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    """Mixer and MLP, each behind an RMSNorm and beside a residual."""

    def __init__(self, mixer: type, width: int, heads: int, hidden: int, *, rngs: nnx.Rngs):
        self.mixer_norm = nnx.RMSNorm(width, rngs=rngs)
        self.mixer = mixer(width, heads, rngs=rngs)
        self.mlp_norm = nnx.RMSNorm(width, rngs=rngs)
        self.mlp = Mlp(width, hidden, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        x = x + self.mixer(self.mixer_norm(x)).astype(x.dtype)
        return x + self.mlp(self.mlp_norm(x))


class LanguageModel(nnx.Module):
    """Logits for each token. The layers are one layer with stacked parameters: they compile once, in a scan."""

    def __init__(self, mixer: type, settings: ModelSettings, vocabulary: int = VOCABULARY, *, rngs: nnx.Rngs):
        hidden = mlp_hidden(mixer, settings)
        self.embedding = nnx.Embed(
            vocabulary, settings.width, embedding_init=nnx.initializers.normal(settings.width**-0.5), rngs=rngs
        )
        self.layers = nnx.vmap(
            lambda rngs: Layer(mixer, settings.width, settings.heads, hidden, rngs=rngs),
            in_axes=0,
            out_axes=0,
        )(rngs.split(settings.layers))
        self.norm = nnx.RMSNorm(settings.width, rngs=rngs)

    def __call__(self, tokens: Integer[Array, "batch time"]) -> Float[Array, "batch time vocabulary"]:
        layer, parameters = nnx.split(self.layers)
        # What a mixer writes to itself during the call is dropped with the merged copy: no state survives a call.
        x, _ = jax.lax.scan(lambda x, stacked: (nnx.merge(layer, stacked)(x), None), self.embedding(tokens), parameters)
        return self.embedding.attend(self.norm(x))


def mlp_hidden(mixer: type, settings: ModelSettings) -> int:
    """Hidden width of the MLP that brings a layer to `layer_params * width^2` parameters.

    Raises:
      ValueError: if the mixer leaves less than width^2 parameters for the MLP.
    """
    budget = settings.layer_params * settings.width**2
    used = mixer_params(mixer, settings)
    if budget - used < settings.width**2:
        raise ValueError(f"the mixer has {used:,} parameters of the layer's {budget:,.0f}: too few are left")
    return round((budget - used) / (3 * settings.width))


def expected_params(settings: ModelSettings, vocabulary: int = VOCABULARY) -> tuple[int, int]:
    """(least, most) parameters of a whole model: the MLP's hidden width is a whole number, so it is not one figure."""
    width, layers = settings.width, settings.layers
    rounding = 3 * width / 2
    layer = settings.layer_params * width**2 + 2 * width
    outside = vocabulary * width + width
    return math.floor(layers * (layer - rounding) + outside), math.ceil(layers * (layer + rounding) + outside)


def mixer_params(mixer: type, settings: ModelSettings) -> int:
    """Parameters of one mixer, counted without computing anything."""
    return count_params(nnx.eval_shape(lambda: mixer(settings.width, settings.heads, rngs=nnx.Rngs(0))))


def count_params(module: nnx.Module) -> int:
    """Numbers in all `nnx.Param` of a module."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def bits_per_token(model: Any, windows: Integer[Array, "batch time_plus_one"]) -> Float[Array, "batch time"]:
    """Bits of each next token under the model, in float32."""
    inputs, targets = windows[:, :-1].astype(jnp.int32), windows[:, 1:].astype(jnp.int32)
    log_probs = jax.nn.log_softmax(model(inputs).astype(jnp.float32))
    chosen = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    return -chosen / jnp.log(2.0)
