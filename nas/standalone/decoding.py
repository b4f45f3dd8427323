"""One token after the other through a trained model, in constant memory where its mixer has a `step`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nas.model import LanguageModel


class Decoder:
    """What a model says of the next token, after each that it is given.

    By the mixer's `step` and its state, of a size that does not grow; if it has none, by the whole text so far.

    Args:
      batch: sequences at a time.
    """

    def __init__(self, model: LanguageModel, batch: int = 1):
        graph, self._variables = nnx.split(model)
        self._steps = has_step(model)
        self._seen = np.zeros((batch, 0), np.int32)
        if self._steps:
            self._state = init_state(model, batch)
            self._step = jax.jit(lambda variables, *now: step(nnx.merge(graph, variables), *now))
        else:
            self._call = jax.jit(lambda variables, tokens: nnx.merge(graph, variables)(tokens))

    def __call__(self, tokens: Sequence[int]) -> jax.Array:
        """Logits of the token after these, one of each sequence [batch]: [batch, vocabulary]."""
        now = np.asarray(tokens, np.int32)
        if self._steps:
            logits, self._state = self._step(self._variables, now, self._state)
            return logits
        self._seen = np.concatenate([self._seen, now[:, None]], axis=1)
        time = self._seen.shape[1]
        padded = np.pad(
            self._seen, [(0, 0), (0, (1 << (time - 1).bit_length()) - time)]
        )  # one program for many lengths
        return self._call(self._variables, padded)[:, time - 1]


def has_step(model: LanguageModel) -> bool:
    """Whether its mixer can go on from a state."""
    return all(callable(getattr(model.layers.mixer, name, None)) for name in ("init_state", "step"))


def init_state(model: LanguageModel, batch: int) -> Any:
    """The mixers' states before the first token: every array has a leading axis [layers]."""
    layer, parameters = nnx.split(model.layers)
    return jax.vmap(lambda one: nnx.merge(layer, one).mixer.init_state(batch))(parameters)


def step(model: LanguageModel, tokens: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """(logits [batch, vocabulary], state) after `tokens` [batch]: what `model` says of the last of a whole sequence."""
    layer, parameters = nnx.split(model.layers)

    def through(x: jax.Array, now: tuple[Any, Any]) -> tuple[jax.Array, Any]:
        one = nnx.merge(layer, now[0])
        y, after = one.mixer.step(one.mixer_norm(x), now[1])
        x = x + y.astype(x.dtype)
        return x + one.mlp(one.mlp_norm(x)), after

    x, state = jax.lax.scan(through, model.embedding(jnp.asarray(tokens)), (parameters, state))
    return model.embedding.attend(model.norm(x)), state
