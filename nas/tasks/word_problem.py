"""The word problem of a group (Merrill et al. 2024, https://arxiv.org/abs/2404.08819): the product of all so far.

Each token is a permutation of five things, each answer the permutation that they make together. Neither S5 (all 120)
nor A5 (the 60 even ones) can be solved by a transition that is diagonal, of whatever depth; products of Householder
steps can, with as many to a token as the permutations that are tokens need swaps (Grazzi et al. 2024,
https://arxiv.org/abs/2411.12537; Siems et al. 2025, https://arxiv.org/abs/2502.10297).

Published: every element of the group is a token. Tiny: only those that swap two neighbours (S5; one step to a token is
enough) or turn three in a circle (A5; two steps), and the one that moves nothing; they make the whole group. Grazzi et
al. have swaps and circles alone too, of any of the five.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from nas.tasks.probe import Examples, Probe, Setup, Task, answered

POINTS = 5


def cycles(permutation: tuple[int, ...]) -> list[int]:
    """Lengths of its cycles, the longest first."""
    left, lengths = set(range(len(permutation))), []
    while left:
        at, length = min(left), 0
        while at in left:
            left.remove(at)
            at, length = permutation[at], length + 1
        lengths.append(length)
    return sorted(lengths, reverse=True)


@dataclass(frozen=True)
class WordProblem(Probe):
    """Products in S5, or in A5 if `even`.

    Attributes:
      neighbours: tokens are those elements alone that move two neighbours, or three in A5, or nothing.
    """

    even: bool = False
    neighbours: bool = False

    @property
    def chance(self) -> float:
        return 1 / len(self.elements)

    @cached_property
    def elements(self) -> np.ndarray:
        """What tokens and answers stand for: int [elements, 5], the image of each point. The first moves none."""
        whole = list(permutations(range(POINTS)))
        even = [element for element in whole if (POINTS - len(cycles(element))) % 2 == 0]
        return np.array(even if self.even else whole)

    @cached_property
    def letters(self) -> np.ndarray:
        """Indices of the elements that are tokens."""
        moves = self.elements != np.arange(POINTS)
        most = (3 if self.even else 2) if self.neighbours else POINTS
        first, last = moves.argmax(axis=1), POINTS - 1 - moves[:, ::-1].argmax(axis=1)
        return np.nonzero(~moves.any(axis=1) | (last - first < most))[0]

    @cached_property
    def products(self) -> np.ndarray:
        """Index of `second after first`, for each (first, second)."""
        index = {tuple(element): number for number, element in enumerate(self.elements.tolist())}
        return np.array([[index[tuple(second[first])] for second in self.elements] for first in self.elements])

    def sample(self, rng: np.random.Generator, count: int, time: int) -> Examples:
        tokens = rng.choice(self.letters, (count, time))
        targets = tokens.copy()
        for at in range(1, time):
            targets[:, at] = self.products[targets[:, at - 1], tokens[:, at]]
        return answered(tokens, targets, np.ones(tokens.shape, bool))


def _published(even: bool) -> Setup:
    return Setup(
        WordProblem(60 if even else 120, 128, (2, 4), even),
        width=128,
        heads=4,
        steps=40_000,
        batch=256,
        learning_rates=(1e-4, 5e-4, 1e-3),
        examples=1280,
    )


def _tiny(even: bool) -> Setup:
    return Setup(
        WordProblem(60 if even else 120, 8 if even else 16, (2, 4), even, neighbours=True),
        width=32,
        heads=2,
        steps=1000 if even else 600,
        batch=64 if even else 32,
        learning_rates=(4e-3, 1e-2),
    )


S5 = Task(_published(even=False), _tiny(even=False))
A5 = Task(_published(even=True), _tiny(even=True))
