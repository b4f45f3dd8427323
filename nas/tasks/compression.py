"""Compression of the MAD suite (Poli et al. 2024, https://arxiv.org/abs/2403.17844): random tokens, to be said again.

Simplified: MAD reads the whole sequence from the one vector at its last token, by a decoder of its own. The backbone
here has none, so after the tokens there are as many compression tokens, and at each the model says the next one of
what it has read. A state of fixed size has to hold all of it; softmax attention may look back, and is flattered.

Published: vocabulary 16, 32 tokens; with those to say them at, 64.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered


@dataclass(frozen=True)
class Compression(Probe):
    """Half of the time reads, half of it says. The vocabulary's last token is the compression token."""

    @property
    def chance(self) -> float:
        return 1 / (self.vocabulary - 1)

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        read = time // 2
        told = rng.integers(0, self.vocabulary - 1, (count, read))
        tokens = np.full((count, time), self.vocabulary - 1)
        tokens[:, :read] = told
        targets, weights = np.zeros((count, time), int), np.zeros((count, time), bool)
        targets[:, read : 2 * read] = told
        weights[:, read : 2 * read] = True
        return answered(tokens, targets, weights)


TASK = Task(
    published=Setup(
        Compression(16, 64),
        width=128,
        heads=8,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(Compression(16, 32), width=32, heads=2, steps=400, batch=32, learning_rates=(4e-3, 1e-2)),
)
