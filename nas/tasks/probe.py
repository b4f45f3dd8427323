"""What a probe task is: examples drawn on the fly, each with its exact answers.

A probe asks for one ability (recall, copying, state tracking). It gates and describes; what ranks is bits per byte.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
Integers = NDArray[np.integer[Any]]
Weights = NDArray[np.float32]


class Examples(NamedTuple):
    """What a model reads, and what it has to say after each token.

    Attributes:
      tokens: int32 [count, time].
      targets: int32 [count, time]; anything where both weights are 0.
      weights: float32 [count, time]; 1 where `targets` has an answer that follows from the tokens so far, and is
        scored.
      trained: float32 [count, time]; 1 where the loss is taken. Where a task does not say otherwise, as `weights`.
    """

    tokens: Rows
    targets: Rows
    weights: Weights
    trained: Weights


@dataclass(frozen=True)
class Probe(ABC):
    """One task at one size. Pure: all randomness is passed in.

    Attributes:
      vocabulary: tokens, and answers, are below it.
      time: tokens of a training example.
      longer: it is scored at `time`, and at these multiples of it.
    """

    vocabulary: int
    time: int
    longer: tuple[int, ...] = ()

    @property
    def scored_times(self) -> tuple[int, ...]:
        """Tokens of the examples that are scored, the training length first."""
        return (self.time, *(factor * self.time for factor in self.longer))

    @property
    @abstractmethod
    def chance(self) -> float:
        """The accuracy of an even guess among the possible answers."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        """`count` examples of `time` tokens. The same generator state gives the same examples."""


@dataclass(frozen=True)
class Setup:
    """A probe with everything that its training needs, equal for every architecture.

    Attributes:
      width, heads, layers, layer_params: of the backbone (see `ModelSettings`).
      learning_rates: the grid of peak learning rates.
      steps: optimizer steps; fewer where the task is solved before.
      look_every: at most so many steps between looks at whether it is solved.
      examples: held-out ones that are scored at each length.
    """

    probe: Probe
    width: int
    heads: int
    steps: int
    batch: int
    learning_rates: tuple[float, ...]
    layers: int = 2
    layer_params: float = 12.0
    weight_decay: float = 0.1
    look_every: int = 50
    examples: int = 512


@dataclass(frozen=True)
class Task:
    """A probe at its published size, and at one that trains on two CPU cores in less than a minute."""

    published: Setup
    tiny: Setup

    def at(self, size: str) -> Setup:
        """ "published" or "tiny"."""
        return {"published": self.published, "tiny": self.tiny}[size]


def answered(tokens: Integers, targets: Integers, weights: NDArray[np.bool_]) -> Examples:
    """Examples that are trained where they are scored."""
    scored = weights.astype(np.float32)
    return Examples(tokens.astype(np.int32), targets.astype(np.int32), scored, scored)


def shifted(sequence: Integers, scored: NDArray[np.bool_], trained: NDArray[np.bool_] | None = None) -> Examples:
    """Next-token prediction on sequences of `time + 1` tokens.

    Args:
      scored: bool [count, time + 1]; where a token is an answer.
      trained: likewise, where a token is to be predicted in training; everywhere if None.
    """
    everywhere = np.ones_like(scored) if trained is None else trained
    return Examples(
        sequence[:, :-1].astype(np.int32),
        sequence[:, 1:].astype(np.int32),
        scored[:, 1:].astype(np.float32),
        everywhere[:, 1:].astype(np.float32),
    )


def distinct(rng: np.random.Generator, count: int, most: int, size: int) -> Rows:
    """`size` different numbers below `most`, in random order, for each of `count` rows: int32 [count, size]."""
    return rng.random((count, most)).argsort(axis=1)[:, :size].astype(np.int32)
