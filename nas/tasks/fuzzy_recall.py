"""Fuzzy in-context recall of the MAD suite (Poli et al. 2024, https://arxiv.org/abs/2403.17844).

As in-context recall, but keys and values are motifs of one to three tokens, without a repeat in one: a model has to
find out where a key ends. Each token of a value is scored whose key was shown before. The last pair is an earlier one.

Published: vocabulary 16 (of which one is left over, for padding at the start), 128 tokens, motifs up to 3.
Simplified: MAD scores keys of the longest size alone, here all sizes are scored as they are trained.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, shifted


@dataclass(frozen=True)
class FuzzyRecall(Probe):
    """Recall of motifs. The vocabulary's last token is padding."""

    motif: int = 3

    @property
    def symbols(self) -> int:
        """Tokens that keys are made of, the first of the vocabulary; values have as many, which follow."""
        return (self.vocabulary - 1) // 2

    @property
    def chance(self) -> float:
        return 1 / self.symbols

    @cached_property
    def _motifs(self) -> tuple[np.ndarray, np.ndarray]:
        """(all motifs: int [motifs, longest], filled up with -1; the first index of each size and the end)."""
        by_size = [list(permutations(range(self.symbols), size)) for size in range(1, self.motif + 1)]
        rows = [motif + (-1,) * (self.motif - len(motif)) for motifs in by_size for motif in motifs]
        return np.array(rows), np.cumsum([0, *map(len, by_size)])

    def _draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Indices of motifs, each size as often as another."""
        first = self._motifs[1]
        size = rng.integers(0, self.motif, shape)
        return first[size] + (rng.random(shape) * (first[size + 1] - first[size])).astype(np.int64)

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        motifs, length, rows = self._motifs[0], time + 1, np.arange(count)
        pairs = length // 2
        value_of = self._draw(rng, (count, len(motifs)))
        keys = self._draw(rng, (count, pairs + 1))
        # As many pairs as leave room for one more of any size, which asks for one of them.
        sizes = (motifs >= 0).sum(axis=1)
        taken = sizes[keys] + sizes[np.take_along_axis(value_of, keys, axis=1)]
        last = (taken.cumsum(axis=1) <= length - 2 * self.motif).sum(axis=1)
        keys[rows, last] = keys[rows, rng.integers(0, last)]
        values = np.take_along_axis(value_of, keys, axis=1)
        tokens = np.concatenate([motifs[keys], np.where(motifs[values] < 0, -1, motifs[values] + self.symbols)], axis=2)
        there = (tokens >= 0) & (np.arange(pairs + 1) <= last[:, None])[..., None]
        again = _seen_before(keys)[..., None] & (np.arange(2 * self.motif) >= self.motif)
        return self._packed(tokens, there, again & there, length)

    def _packed(self, tokens: np.ndarray, there: np.ndarray, scored: np.ndarray, length: int) -> Examples:
        """The tokens that are there, one after the other, up to the end."""
        count = len(tokens)
        flat, is_there, answers = (array.reshape(count, -1) for array in (tokens, there, scored))
        at = length - is_there.sum(axis=1, keepdims=True) + is_there.cumsum(axis=1) - 1
        sequence = np.full((count, length), self.vocabulary - 1)
        is_scored, is_trained = np.zeros((2, count, length), bool)
        row = np.nonzero(is_there)[0]
        sequence[row, at[is_there]] = flat[is_there]
        is_scored[row, at[is_there]] = answers[is_there]
        is_trained[row, at[is_there]] = True
        return shifted(sequence, is_scored, is_trained)


def _seen_before(keys: np.ndarray) -> np.ndarray:
    """Whether a pair's key was in an earlier one: bool [count, pairs]."""
    same = keys[:, :, None] == keys[:, None, :]
    return np.tril(same, -1).any(axis=2)


TASK = Task(
    published=Setup(
        FuzzyRecall(16, 128),
        width=128,
        heads=8,
        steps=20_000,
        batch=128,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    ),
    tiny=Setup(FuzzyRecall(12, 64, (2,), 2), width=32, heads=2, steps=400, batch=32, learning_rates=(4e-3, 1e-2)),
)
