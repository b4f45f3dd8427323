"""Which of several possible children looks best, by what was trained before and how much they are alike.

The meta-learner chooses the kind of change; of the children that this could make, which cost nothing to draw, the one
to train is chosen by a Gaussian process on the parts in each slot, of which one draw decides each choice (Thompson
sampling; that ranking mutations before they are trained is what matters in a predictor: White et al. 2021, BANANAS,
https://arxiv.org/abs/1910.11858). So what is unknown is tried, and what has been found to help is put in again. Two
candidates are as alike as the slots in which they have the same part: unlike a linear model of the parts, this lets a
part help beside one other and not beside the next. Candidates with parts of their own count for these slots as one
part, "custom".
"""

import random
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from nas.meta.posterior import Measured

_REACH = 3.0  # slots that differ, over which the correlation of two candidates falls to 1/e
_NOISE = 0.1  # variance of a measurement, in variances of what is predicted
_OFFSET = 10.0  # prior variance of what all candidates of one search that were stopped at one step have in common
_LEAST = 4  # trained candidates, before which nothing is predicted
_MOST = 256  # that are remembered, the latest: so a choice takes no longer in a long search
Parts = Mapping[str, str]  # slot -> part
Name = TypeVar("Name", bound=Hashable)


class Predictor:
    """Bits per byte of candidates by their parts. The slots are those of the first candidate of this search."""

    def __init__(self) -> None:
        self._slots: tuple[str, ...] = ()
        self._codes: dict[tuple[str, str], int] = {}  # (slot, part) -> its number
        self._earlier: list[tuple[Measured, float]] = []  # of another search, with the variance of each
        self._known: deque[Measured] = deque(maxlen=_MOST)

    def learn(self, measured: Measured) -> None:
        """Takes in what was made of a candidate of this search."""
        self._slots = self._slots or tuple(measured.parts)
        self._known.append(measured)

    def start_from(self, earlier: Sequence[Measured], weight: float) -> None:
        """Begins with what another search has measured, each as much as `weight` of a measurement of its own.

        Only differences among them count: another corpus or size has other bits per byte.
        """
        self._earlier = [(one, _NOISE / weight) for one in earlier[-_MOST:] if weight > 0]

    def measured(self) -> tuple[Measured, ...]:
        """What this search has measured, for a later one."""
        return tuple(self._known)

    def best(self, possible: Sequence[Parts], rng: random.Random) -> int:
        """Index of the one with the fewest bits per byte, by a draw of what they may be after all that is known.

        The first, while too little is known.
        """
        if len(possible) < 2 or not self.knows:
            return 0
        return int(self._sampled(possible, 1, rng)[0].argmin())

    def foresee(
        self, options: Mapping[Name, Sequence[Parts]], draws: int, rng: random.Random
    ) -> dict[Name, list[float]]:
        """Name -> for each of `draws` draws, the bits per byte of its best option, on a common scale.

        Nothing while too little is known; nothing of a name without options.
        """
        of_all = [one for possible in options.values() for one in possible]
        if not of_all or not self.knows:
            return {}
        sampled, at = self._sampled(of_all, draws, rng), 0
        found: dict[Name, list[float]] = {}
        for name, possible in options.items():
            if possible:
                found[name] = sampled[:, at : at + len(possible)].min(axis=1).tolist()
            at += len(possible)
        return found

    @property
    def knows(self) -> bool:
        return len(self._earlier) + len(self._known) >= _LEAST

    def _sampled(self, possible: Sequence[Parts], draws: int, rng: random.Random) -> Any:
        """Standardised bits per byte of each, by each of `draws` draws from the posterior: [draws, possible]."""
        import numpy as np  # late: a command line that never gets here should not wait for it

        known = [*self._earlier, *((one, _NOISE) for one in self._known)]
        codes = np.array([self._encoded(one.parts) for one, _ in known])
        bits = np.array([one.bits_per_byte for one, _ in known])
        groups = np.array([one.step if at >= len(self._earlier) else -one.step for at, (one, _) in enumerate(known)])
        new = np.array([self._encoded(one) for one in possible])
        together = groups[:, None] == groups
        deviations = bits - (together @ bits) / together.sum(axis=1)
        values = (bits - bits.mean()) / max(float(deviations.std()), 1e-6)
        root = np.linalg.cholesky(_alike(codes, codes) + _OFFSET * together + np.diag([noise for _, noise in known]))
        whitened = np.linalg.solve(root, np.column_stack([_alike(codes, new), values]))
        weights, values = whitened[:, :-1], whitened[:, -1]
        covariance = _alike(new, new) - weights.T @ weights
        scatter = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(new)))  # two of them may be the same
        normal = np.random.default_rng(rng.getrandbits(32)).standard_normal((draws, len(new)))
        return weights.T @ values + normal @ scatter.T

    def _encoded(self, parts: Parts) -> list[int]:
        return [self._codes.setdefault((slot, parts.get(slot, "")), len(self._codes)) for slot in self._slots]


def _alike(some: Any, others: Any) -> Any:
    """Correlation of the candidates with these codes: [some, others]."""
    import numpy as np

    return np.exp(-(some[:, None, :] != others[None, :, :]).sum(axis=-1) / _REACH)
