"""Selective copying of the MAD suite (Poli et al. 2024, https://arxiv.org/abs/2403.17844; Gu and Dao 2023).

Some tokens stand at random places among blanks; after a copy token and while blanks go on, a model has to say them in
their order.

Published: vocabulary 16, of which 14 are to be copied, 16 of them among 256 tokens.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered, distinct


@dataclass(frozen=True)
class SelectiveCopying(Probe):
    """The vocabulary's last tokens are the blank and the copy token. `copied` tokens are to be copied."""

    copied: int = 16

    @property
    def chance(self) -> float:
        return 1 / (self.vocabulary - 2)

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        blank, copy = self.vocabulary - 2, self.vocabulary - 1
        shown = time - self.copied - 1
        places = np.sort(distinct(rng, count, shown, self.copied), axis=1)
        told = rng.integers(0, blank, (count, self.copied))
        tokens = np.full((count, time), blank)
        np.put_along_axis(tokens, places, told, axis=1)
        tokens[:, shown] = copy
        targets, weights = np.zeros((count, time), int), np.zeros((count, time), bool)
        targets[:, shown + 1 :] = told
        weights[:, shown + 1 :] = True
        return answered(tokens, targets, weights)


TASK = Task(
    published=Setup(
        SelectiveCopying(16, 256),
        width=128,
        heads=8,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(SelectiveCopying(10, 32, (2,), 6), width=32, heads=2, steps=400, batch=32, learning_rates=(4e-3, 1e-2)),
)
