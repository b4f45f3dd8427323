"""From what training measured to one score. A fitness is one function here and one line in `conf/fitness/`."""

from collections.abc import Callable, Mapping
from typing import Any

from nas.types import Crashed, Fitness

Score = Callable[[Mapping[str, Any]], float]


def bits_per_byte(measured: Mapping[str, Any]) -> float:
    """Minus the validation bits per byte: of the cheap signals the one that ranks architectures best."""
    return -measured["bits_per_byte"]


FITNESS: dict[str, Score] = {"bits_per_byte": bits_per_byte}


def fitness_of(measured: Mapping[str, Any], kind: str) -> Fitness | Crashed:
    """The outcome of a trial whose last rung measured this; Crashed if a number of it is missing or not finite.

    The held-out scores are not read from it: it comes from a process that ran the candidate.
    """
    score = FITNESS[kind]
    try:
        return Fitness(
            bits_per_byte=measured["bits_per_byte"],
            step=measured["step"],
            score=score(measured),
            stderr=measured["stderr"],
            tokens_per_second=measured["tokens_per_second"],
            peak_bytes=measured["peak_bytes"],
            flops_per_token=measured["flops_per_token"],
            params=measured["params"],
            learning_rate=measured.get("learning_rate"),
        )
    except (ValueError, TypeError, KeyError) as error:
        return Crashed("diverged", f"a measurement can't be a score: {error}")
