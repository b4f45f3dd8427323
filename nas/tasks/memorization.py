"""Memorization of the MAD suite (Poli et al. 2024, https://arxiv.org/abs/2403.17844): facts that hold in all examples.

Each key has one value, which no example shows: after a key comes the insert token, where the value is to be said. It
asks for capacity in the weights, the MLP's above all.

Published: vocabulary 256, 32 tokens. MAD has 256 examples of it to train on; here they are drawn afresh.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered

_FACTS_SEED = 12345


@dataclass(frozen=True)
class Memorization(Probe):
    """The vocabulary is keys, then values, and last the insert token."""

    @property
    def keys(self) -> int:
        return (self.vocabulary - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / self.keys

    @cached_property
    def facts(self) -> np.ndarray:
        """Value of each key: int [keys]. The same for every training seed."""
        return self.keys + np.random.default_rng(_FACTS_SEED).permutation(self.keys)

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        asked = rng.integers(0, self.keys, (count, (time + 1) // 2))
        tokens, targets = np.full((count, time), self.vocabulary - 1), np.zeros((count, time), int)
        tokens[:, ::2] = asked
        targets[:, 1::2] = self.facts[asked[:, : time // 2]]
        weights = np.broadcast_to(np.arange(time) % 2 == 1, tokens.shape)
        return answered(tokens, targets, weights)


TASK = Task(
    published=Setup(
        Memorization(256, 32),
        width=128,
        heads=8,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(Memorization(128, 32), width=32, heads=2, steps=300, batch=32, learning_rates=(4e-3, 1e-2)),
)
