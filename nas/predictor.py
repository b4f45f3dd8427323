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
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from nas.meta.posterior import Measured

_REACH = 3.0  # slots that differ, over which the correlation of two candidates falls to 1/e
_NOISE = 0.1  # variance of a measurement, in variances of what is predicted
_OFFSET = 10.0  # prior variance of what all candidates of one search that were stopped at one step have in common
_LEAST = 4  # trained candidates, before which nothing is predicted
_MOST = 160  # that are remembered, the latest: so a choice takes no longer in a long search
Parts = Mapping[str, str]  # slot -> part
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class _Known:
    """A measurement, of this search or of an earlier one, and its variance in those of what is predicted."""

    measured: Measured
    own: bool
    noise: float


class Predictor:
    """Bits per byte of candidates by their parts. The slots are those of the first candidate that it hears of."""

    def __init__(self) -> None:
        self._slots: tuple[str, ...] = ()
        self._codes: dict[tuple[str, str], int] = {}  # (slot, part) -> its number
        self._known: deque[_Known] = deque(maxlen=_MOST)
        self._rows: Any = None  # codes of what is known: [known, slots]
        self._correlations: Any = None  # [known, known]
        self._fitted: tuple[Any, Any] | None = None  # see `_fit`; None after something new was learned

    def learn(self, measured: Measured) -> None:
        """Takes in what was made of a candidate of this search."""
        self._take(_Known(measured, own=True, noise=_NOISE))

    def start_from(self, earlier: Sequence[Measured], weight: float) -> None:
        """Begins with what another search has measured, each as much as `weight` of a measurement of its own.

        Only differences among them count: another corpus or size has other bits per byte.
        """
        for one in earlier if weight > 0 else ():
            self._take(_Known(one, own=False, noise=_NOISE / weight))

    def measured(self) -> tuple[Measured, ...]:
        """What this search has measured, for a later one."""
        return tuple(known.measured for known in self._known if known.own)

    def ranked(self, possible: Sequence[Parts], rng: random.Random) -> list[int]:
        """Indices of these, the fewest bits per byte first, by a draw of what they may be after all that is known.

        As they stand, while too little is known.
        """
        if len(possible) < 2 or not self.knows:
            return list(range(len(possible)))
        return [int(at) for at in self._sampled(possible, 1, rng)[0].argsort(kind="stable")]

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
        return len(self._known) >= _LEAST

    def _take(self, known: "_Known") -> None:
        import numpy as np  # late: a command line that never gets here should not wait for it

        self._slots = self._slots or tuple(known.measured.parts)
        row = np.array([self._encoded(known.measured.parts)])
        rows = row if self._rows is None else np.concatenate([self._rows, row])
        grown = np.ones((len(rows), len(rows)))
        grown[-1, :] = grown[:, -1] = _alike(rows, row)[:, 0]
        if self._rows is not None:
            grown[:-1, :-1] = self._correlations
        self._known.append(known)
        self._rows, self._correlations = rows[-_MOST:], grown[-_MOST:, -_MOST:]
        self._fitted = None

    def _fit(self) -> tuple[Any, Any]:
        """Cholesky factor of the covariance of what is known; its standardised bits per byte, whitened by that."""
        import numpy as np
        from scipy.linalg import solve_triangular

        if self._fitted is None:
            bits = np.array([known.measured.bits_per_byte for known in self._known])
            groups = np.array([known.measured.step if known.own else -known.measured.step for known in self._known])
            together = groups[:, None] == groups
            deviations = bits - (together @ bits) / together.sum(axis=1)
            values = (bits - bits.mean()) / max(float(deviations.std()), 1e-6)
            noise = np.diag([known.noise for known in self._known])
            root = np.linalg.cholesky(self._correlations + _OFFSET * together + noise)
            self._fitted = root, solve_triangular(root, values, lower=True)
        return self._fitted

    def _sampled(self, possible: Sequence[Parts], draws: int, rng: random.Random) -> Any:
        """Standardised bits per byte of each, by each of `draws` draws from the posterior: [draws, possible]."""
        import numpy as np
        from scipy.linalg import solve_triangular

        new = np.array([self._encoded(one) for one in possible])
        normal = np.random.default_rng(rng.getrandbits(32)).standard_normal((draws, len(new)))
        with _one_thread():
            root, values = self._fit()
            weights = solve_triangular(root, _alike(self._rows, new), lower=True)
            covariance = _alike(new, new) - weights.T @ weights
            scatter = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(new)))  # two of them may be the same
            return weights.T @ values + normal @ scatter.T

    def _encoded(self, parts: Parts) -> list[int]:
        return [self._codes.setdefault((slot, parts.get(slot, "")), len(self._codes)) for slot in self._slots]


def _one_thread() -> Any:
    """Linear algebra on one thread: on matrices as small as these, threads wait for each other and for who trains."""
    return _libraries().limit(limits=1)


@cache
def _libraries() -> Any:
    import numpy  # noqa: F401  what is not loaded is not found
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _alike(some: Any, others: Any) -> Any:
    """Correlation of the candidates with these codes: [some, others]."""
    import numpy as np

    return np.exp(-(some[:, None, :] != others[None, :, :]).sum(axis=-1) / _REACH)
