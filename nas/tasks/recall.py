"""In-context recall, plain and noisy, of the MAD suite (Poli et al. 2024, https://arxiv.org/abs/2403.17844).

Pairs of a key and a value, one after the other; a key keeps its value within an example. Each value whose key was
shown before is scored. With noise, some pairs are two tokens of a vocabulary of their own.

Published: vocabulary 16, 128 tokens; with noise vocabulary 32, of which 16 are noise, in 20% of the pairs. Width 128,
two layers, batch 128; here 20,000 steps on fresh examples stand for 200 epochs over 12,800.
Tiny: softmax attention, which has no convolution, needs some 800 steps to find out how.
"""

from dataclasses import dataclass

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, shifted


@dataclass(frozen=True)
class Recall(Probe):
    """Recall of single tokens.

    Attributes:
      noise_vocabulary: how many of the vocabulary are noise tokens, its last ones.
      noise: share of the pairs that are noise.
    """

    noise_vocabulary: int = 0
    noise: float = 0.0

    @property
    def keys(self) -> int:
        """Different keys, the first tokens of the vocabulary; as many values follow them."""
        return (self.vocabulary - self.noise_vocabulary) // 2

    @property
    def chance(self) -> float:
        return 1 / self.keys

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        pairs = (time + 1) // 2
        value_of = rng.integers(self.keys, 2 * self.keys, (count, self.keys))
        keys = rng.integers(0, self.keys, (count, pairs))
        noisy = rng.random((count, pairs)) < self.noise
        noisy[:, [0, -1]] = False  # the last pair asks for the first one's key, so that each example has an answer
        keys[:, -1] = keys[:, 0]
        noise = rng.integers(2 * self.keys, max(self.vocabulary, 2 * self.keys + 1), (count, pairs, 2))
        values = np.take_along_axis(value_of, keys, axis=1)
        shown = np.where(noisy[..., None], noise, np.stack([keys, values], axis=-1)).reshape(count, 2 * pairs)
        scored = np.zeros((count, pairs, 2), bool)
        scored[..., 1] = _seen_before(keys, noisy, self.keys)
        odd = rng.integers(0, self.keys, (count, 1))  # one token more where a half pair is needed
        sequence = np.concatenate([shown, odd], axis=1)[:, : time + 1]
        answers = np.concatenate([scored.reshape(count, -1), np.zeros((count, 1), bool)], axis=1)[:, : time + 1]
        return shifted(sequence, answers)


def _seen_before(keys: np.ndarray, noisy: np.ndarray, most: int) -> np.ndarray:
    """Whether a pair's key was in an earlier one: bool [count, pairs]; False for noise."""
    seen = np.zeros((len(keys), most), bool)
    found = np.zeros(keys.shape, bool)
    rows = np.arange(len(keys))
    for pair in range(keys.shape[1]):
        there, key = ~noisy[:, pair], keys[:, pair]
        found[:, pair] = there & seen[rows, key]
        seen[rows, key] |= there
    return found


_MAD = {"width": 128, "heads": 8, "steps": 20_000, "batch": 128, "learning_rates": (1e-4, 5e-4, 1e-3)}
_TINY = {"width": 32, "heads": 2, "steps": 1000, "batch": 32, "learning_rates": (4e-3, 1e-2)}

IN_CONTEXT = Task(
    published=Setup(Recall(16, 128), examples=1280, **_MAD),  # type: ignore[arg-type]
    tiny=Setup(Recall(16, 64, (2,)), **_TINY),  # type: ignore[arg-type]
)
NOISY = Task(
    published=Setup(Recall(32, 128, (), 16, 0.2), examples=1280, **_MAD),  # type: ignore[arg-type]
    tiny=Setup(Recall(24, 64, (2,), 8, 0.2), **_TINY),  # type: ignore[arg-type]
)
