"""A trained model from its files: the weights as they were, whatever their type; the rest as its seed draws it."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nas.model import LanguageModel
from nas.settings import ModelSettings


def read(folder: Path, mixer: type) -> LanguageModel:
    """The model of `config.json` and `weights.npz` in a folder, around the token mixer `mixer`.

    Raises:
      ValueError: if the weights are not those of this mixer.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = ModelSettings(**config["model"])

    def create() -> LanguageModel:
        return LanguageModel(mixer, settings, config["vocabulary"], rngs=nnx.Rngs(jax.random.key(config["seed"])))

    split: Any = nnx.split  # its overloads do not know `...`
    graph, params, rest = split(nnx.eval_shape(create), nnx.Param, ...)
    if jax.tree.leaves(rest):
        rest = jax.jit(lambda: split(create(), nnx.Param, ...)[2])()
    leaves, tree = jax.tree.flatten(params)
    names = [name_of(path) for path, _ in jax.tree.leaves_with_path(nnx.to_pure_dict(params))]
    with np.load(folder / "weights.npz", allow_pickle=False) as stored:
        if {*stored} != {*names}:
            raise ValueError(f"the weights are of another mixer: {', '.join(sorted({*stored} ^ {*names})[:3])}")
        weights = [stored[name].view(jnp.dtype(config["dtypes"][name])) for name in names]
    for name, weight, leaf in zip(names, weights, leaves, strict=True):
        if weight.shape != leaf.shape:
            raise ValueError(f"the weights {name} have the shape {weight.shape} where the mixer has {leaf.shape}")
    model: LanguageModel = nnx.merge(graph, jax.tree.unflatten(tree, [jnp.asarray(weight) for weight in weights]), rest)
    return model


def name_of(path: Any) -> str:
    """A parameter's name, as `layers/mixer/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
