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
_LEAST_NOISE = 0.05  # share of the variance that no fit is believed to explain
Parts = Mapping[str, str]  # slot -> part


class Predictor:
    """A running regression: what it costs does not grow with the trials."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}  # feature -> its place
        self._gram: Any = None  # sum of x x^T
        self._moment: Any = None  # sum of x y
        self._count = 0
        self._sum = self._squares = 0.0

    def learn(self, parts: Parts, step: int, bits_per_byte: float) -> None:
        """A candidate with these parts had so many bits per byte after `step` optimizer steps."""
        import numpy as np  # late: a command line that never gets here should not wait for it

        names = [*_features(parts), f"after {step}"]
        self._grow(names)
        x = np.zeros(len(self._places))
        x[[self._places[name] for name in names]] = 1.0
        self._gram += np.outer(x, x)
        self._moment += x * bits_per_byte
        self._count += 1
        self._sum += bits_per_byte
        self._squares += bits_per_byte**2

    def best(self, possible: Sequence[Parts], rng: random.Random) -> int:
        """Index of the one with the fewest bits per byte, by weights that are drawn from what is known.

        The first, while too little is known.
        """
        if len(possible) < 2 or not self.knows:
            return 0
        return int(self._sampled(possible, 1, rng)[0].argmin())

    def foresee(self, options: Mapping[str, Sequence[Parts]], draws: int, rng: random.Random) -> dict[str, list[float]]:
        """Name -> for each of `draws` draws of the weights, the bits per byte of its best option, up to a constant.

        Nothing while too little is known; nothing of a name without options.
        """
        of_all = [one for possible in options.values() for one in possible]
        if not of_all or not self.knows:
            return {}
        sampled, at, found = self._sampled(of_all, draws, rng), 0, {}
        for name, possible in options.items():
            if possible:
                found[name] = sampled[:, at : at + len(possible)].min(axis=1).tolist()
            at += len(possible)
        return found

    @property
    def knows(self) -> bool:
        return self._count >= _LEAST

    def _sampled(self, possible: Sequence[Parts], draws: int, rng: random.Random) -> Any:
        """Bits per byte of each, in deviations from the mean, by each of `draws` weights: [draws, possible]."""
        import numpy as np

        normal = np.random.default_rng(rng.getrandbits(32)).standard_normal
        mean = self._sum / self._count
        spread = max(self._squares / self._count - mean**2, 1e-12) ** 0.5
        moment = (self._moment - self._gram.diagonal() * mean) / spread
        precision = self._gram + _PRIOR * np.eye(len(self._gram))
        fitted = np.linalg.solve(precision, moment)
        noise = min(max(1.0 - float(fitted @ moment) / self._count, _LEAST_NOISE), 1.0) ** 0.5  # what the fit leaves
        root = np.linalg.cholesky(precision)
        known = fitted + noise * np.linalg.solve(root.T, normal((len(fitted), draws))).T
        features = [_features(one) for one in possible]
        new = {name: None for names in features for name in names if name not in self._places}
        places = {**self._places, **{name: len(self._places) + at for at, name in enumerate(new)}}
        weights = np.concatenate([known, noise * normal((draws, len(new)))], axis=1)
        return np.stack([weights[:, [places[name] for name in names]].sum(axis=1) for names in features], axis=1)

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


def _features(parts: Parts) -> list[str]:
    return [f"{slot}={part}" for slot, part in parts.items()]
