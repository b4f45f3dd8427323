"""From what training measured to one score. A fitness is one function here and one file of `conf/fitness/`.

A worker knows its own trial alone, so it gives minus the bits per byte; the search, which knows the reference baseline
trained on this same harness, makes the score of it when the trial is told (`nas.scores`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.settings import FitnessSettings
from nas.types import Crashed, Fitness

Score = Callable[["Measures", "Measures", FitnessSettings], float]


@dataclass(frozen=True)
class Measures:
    """What a score can be made of.

    Attributes:
      state_bytes: of one mixer's decoding state at batch 1.
      probes: probe task -> score.
    """

    bits_per_byte: float
    tokens_per_second: float
    peak_bytes: float
    flops_per_token: float
    state_bytes: float
    probes: Mapping[str, float] = field(default_factory=dict)


def bits_per_byte(own: Measures, reference: Measures, settings: FitnessSettings) -> float:
    """Minus the validation bits per byte: of the cheap signals the one that ranks architectures best."""
    return -own.bits_per_byte


def weighted(own: Measures, reference: Measures, settings: FitnessSettings) -> float:
    """The gain over the reference, and what an octave of speed, memory, state or FLOPs is worth, in bits per byte.

    `(bits_ref - bits) + w_tokens log2(tokens / tokens_ref) - w_peak log2(peak / peak_ref) - w_state log2(state /
    state_ref) - w_flops log2(flops / flops_ref) + sum_p w_p (probe_p - probe_p_ref)`. The reference itself scores 0.

    FLOPs and state are exact. Tokens/s is noisy on a machine that does other work, peak memory depends on what else the
    process held, and both are told by the process that runs the candidate: weights on these two are for a machine and a
    proposer that one trusts. What was not measured (tokens/s before the second dispatch, a probe at an early rung)
    counts as the reference's.
    """
    return (
        reference.bits_per_byte
        - own.bits_per_byte
        + settings.tokens_per_second * _octaves(own.tokens_per_second, reference.tokens_per_second)
        - settings.peak_bytes * _octaves(own.peak_bytes, reference.peak_bytes)
        - settings.state_bytes * _octaves(max(own.state_bytes, 1), max(reference.state_bytes, 1))
        - settings.flops_per_token * _octaves(own.flops_per_token, reference.flops_per_token)
        + sum(
            weight * (own.probes[probe] - reference.probes.get(probe, 0.0))
            for probe, weight in settings.probes.items()
            if probe in own.probes
        )
    )


FITNESS: dict[str, Score] = {"bits_per_byte": bits_per_byte, "weighted": weighted}


def _octaves(value: float, reference: float) -> float:
    return math.log2(value / reference) if value > 0 and reference > 0 else 0.0


def judged(score: float, opinion: float | None, spread: float, weight: float) -> float:
    """A score with the judge's opinion in it: `(1 - weight) score + weight spread (opinion - 1/2)`.

    So the best opinion against the worst is worth at most `weight` (0.2 at most) of what the baselines differ by.

    Args:
      opinion: in [0, 1]; None, of whom the judge saw nothing, is the middle.
      spread: of the baselines' scores, from the worst to the best.
    """
    return (1 - weight) * score + weight * spread * ((0.5 if opinion is None else opinion) - 0.5)


def fitness_of(measured: Mapping[str, Any], kind: str) -> Fitness | Crashed:
    """The outcome of a trial whose last rung measured this; Crashed if a number of it is missing or not finite.

    Its score is minus the bits per byte until the search makes it what `kind` says. The held-out scores are not read
    from it: it comes from a process that ran the candidate.
    """
    if kind not in FITNESS:
        raise KeyError(kind)
    try:
        return Fitness(
            bits_per_byte=measured["bits_per_byte"],
            step=measured["step"],
            score=-measured["bits_per_byte"],
            stderr=measured["stderr"],
            tokens_per_second=measured["tokens_per_second"],
            peak_bytes=measured["peak_bytes"],
            flops_per_token=measured["flops_per_token"],
            params=measured["params"],
            learning_rate=measured.get("learning_rate"),
        )
    except (ValueError, TypeError, KeyError) as error:
        return Crashed("diverged", f"a measurement can't be a score: {error}")
