"""Multi-query associative recall (Arora et al. 2023, https://arxiv.org/abs/2312.04927).

Pairs of keys and values, each key once; then every key is asked for once, soon more often than late (the gaps follow a
power law, as those between repeated bigrams of text do), among random tokens that are no keys.

Published: vocabulary 8,192, 256 tokens with 16 pairs, two layers, weight decay 0.1, stop at 0.99. Simplified: theirs
has no MLP; the backbone here always has. Tiny: softmax attention finds out how within 600 steps; with 8 pairs of a
vocabulary of 64 it does not.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered, distinct

_POWER = 0.01


@dataclass(frozen=True)
class Mqar(Probe):
    """The first half of the vocabulary is keys, the other values. Each example has `pairs` of them."""

    pairs: int = 16

    @property
    def chance(self) -> float:
        return 1 / (self.vocabulary // 2)

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        half, shown = self.vocabulary // 2, 2 * self.pairs
        keys = distinct(rng, count, half, self.pairs)
        values = half + distinct(rng, count, half, self.pairs)
        tokens = rng.integers(half, 2 * half, (count, time))
        tokens[:, 0:shown:2], tokens[:, 1:shown:2] = keys, values
        asked = shown + 2 * _gaps(rng, count, (time - shown) // 2, self.pairs)
        targets, weights = np.zeros((count, time), int), np.zeros((count, time), bool)
        np.put_along_axis(tokens, asked, keys, axis=1)
        np.put_along_axis(targets, asked, values, axis=1)
        np.put_along_axis(weights, asked, True, axis=1)
        return answered(tokens, targets, weights)


def _gaps(rng: np.random.Generator, count: int, most: int, size: int) -> np.ndarray:
    """`size` different gaps below `most` a row, drawn by the power law: int [count, size].

    The largest of log-weights with Gumbel noise are a draw without replacement (Kool et al. 2019).
    """
    log_weights = (_POWER - 1) * np.log(np.arange(1, most + 1))
    return np.argsort(-(log_weights + rng.gumbel(size=(count, most))), axis=1)[:, :size]


TASK = Task(
    published=Setup(
        Mqar(8192, 256, (2, 4), 16),
        width=64,
        heads=2,
        steps=25_000,
        batch=256,
        learning_rates=(1e-4, 4.6e-4, 2.2e-3, 1e-2),
        examples=3000,
    ),
    tiny=Setup(Mqar(32, 32, (2,), 4), width=32, heads=2, steps=600, batch=64, learning_rates=(4e-3, 1e-2)),
)
