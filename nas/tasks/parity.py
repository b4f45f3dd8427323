"""Parity of a string of bits, said at each of them (Grazzi et al. 2024, https://arxiv.org/abs/2411.12537).

A recurrence whose transitions have no negative eigenvalues can't keep it up for longer than it was trained for: so the
score that counts is that of longer strings, of which the first ones that long are guessed half right.

Published: trained at 3 to 40 bits, scored at 40 to 256; one length here, 40.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered


@dataclass(frozen=True)
class Parity(Probe):
    """Whether the ones so far are odd in number."""

    @property
    def chance(self) -> float:
        return 0.5

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        bits = rng.integers(0, 2, (count, time))
        return answered(bits, bits.cumsum(axis=1) % 2, np.ones(bits.shape, bool))


TASK = Task(
    published=Setup(
        Parity(2, 40, (2, 4)),
        width=128,
        heads=4,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(Parity(2, 32, (2, 4, 8)), width=32, heads=2, steps=600, batch=32, learning_rates=(4e-3, 1e-2)),
)
