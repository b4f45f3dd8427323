"""Induction (Olsson et al. 2022, https://arxiv.org/abs/2209.11895): what came after this token the last time?

A block of random tokens is said again and again, to the end. From its second time on each token follows from the one
before, which the first time showed. Within a block no token comes twice, so that the answer is never open; its length
differs between examples, so that looking back over a fixed distance does not help.

Olsson et al. look at heads of language models; size and training are as for recall in MAD.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, distinct, shifted


@dataclass(frozen=True)
class Induction(Probe):
    """Blocks of a quarter to a half of the time, so the vocabulary must be no less than half of the longest."""

    @property
    def chance(self) -> float:
        return 1 / self.vocabulary

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        block = rng.integers(time // 4, time // 2 + 1, (count, 1))
        drawn = distinct(rng, count, self.vocabulary, time // 2)
        at = np.arange(time + 1)
        scored = at > block  # its first token, said again, could have been another
        return shifted(np.take_along_axis(drawn, at % block, axis=1), scored)


TASK = Task(
    published=Setup(
        Induction(512, 256, (2, 4)),
        width=128,
        heads=8,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(Induction(64, 32, (2, 4)), width=32, heads=2, steps=400, batch=32, learning_rates=(4e-3, 1e-2)),
)
