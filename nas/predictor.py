"""Which of several possible children looks best, by what the parts of all that was trained were worth.

The meta-learner chooses the kind of change; of the children that this could make, which cost nothing to draw, the one
to train is chosen by a linear model of bits per byte on the parts in each slot: Bayesian ridge regression, from whose
posterior one set of weights is drawn for each choice (Thompson sampling; predictors that rank mutations before they are
trained are what BANANAS found to matter, White et al. 2021, https://arxiv.org/abs/1910.11858). So what is unknown is
tried, and what has been found to help is put in again. Candidates with parts of their own count for these slots as
one part, "custom".
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

_PRIOR = 1.0  # precision of a weight, in standard deviations of what is predicted
_LEAST = 4  # trained candidates, before which nothing is predicted


class Predictor:
    """A running regression: what it costs does not grow with the trials."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}  # feature -> its place
        self._gram: Any = None  # sum of x x^T
        self._moment: Any = None  # sum of x y
        self._count = 0
        self._sum = self._squares = 0.0

    def learn(self, parts: Mapping[str, str], step: int, bits_per_byte: float) -> None:
        """A candidate with these parts had so many bits per byte after `step` optimizer steps."""
        import numpy as np  # half a search needs it nowhere else

        names = [*_features(parts), f"after {step}"]
        self._grow(names)
        x = np.zeros(len(self._places))
        x[[self._places[name] for name in names]] = 1.0
        self._gram += np.outer(x, x)
        self._moment += x * bits_per_byte
        self._count += 1
        self._sum += bits_per_byte
        self._squares += bits_per_byte**2

    def best(self, possible: Sequence[Mapping[str, str]], rng: random.Random) -> int:
        """Index of the one with the fewest bits per byte, by weights that are drawn from what is known.

        The first, while too little is known.
        """
        if len(possible) < 2 or self._count < _LEAST:
            return 0
        import numpy as np

        draws = np.random.default_rng(rng.getrandbits(32))
        mean = self._sum / self._count
        spread = max(self._squares / self._count - mean**2, 1e-12) ** 0.5
        # In standard deviations from the mean, with the noise that is left by the fit.
        gram, moment = self._gram, (self._moment - self._gram.diagonal() * mean) / spread
        precision = gram + _PRIOR * np.eye(len(gram))
        fitted = np.linalg.solve(precision, moment)
        explained = float(fitted @ moment) / self._count
        noise = min(max(1.0 - explained, 0.05), 1.0)
        root = np.linalg.cholesky(precision)
        weights = fitted + noise**0.5 * np.linalg.solve(root.T, draws.standard_normal(len(fitted)))
        unknown = {name: draws.standard_normal() * noise**0.5 for one in possible for name in _features(one)}
        scores = [
            sum(weights[self._places[name]] if name in self._places else unknown[name] for name in _features(one))
            for one in possible
        ]
        return min(range(len(scores)), key=scores.__getitem__)

    def _grow(self, names: Sequence[str]) -> None:
        import numpy as np

        for name in names:
            self._places.setdefault(name, len(self._places))
        size = len(self._places)
        old = 0 if self._gram is None else len(self._gram)
        if size > old:
            gram, moment = np.zeros((size, size)), np.zeros(size)
            if old:
                gram[:old, :old], moment[:old] = self._gram, self._moment
            self._gram, self._moment = gram, moment


def _features(parts: Mapping[str, str]) -> list[str]:
    return [f"{slot}={part}" for slot, part in parts.items()]
