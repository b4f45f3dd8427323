"""What is too good, or too uniform, to be taken on trust. Standard library only, and pure.

A search optimises what it measures, so sooner or later something is better at the measurement than at the task: it
reads the answer, or the measurement is broken. Each tripwire is a bound that an honest candidate hardly ever crosses.
`leap`, `entropy` and `gap` hold a candidate (`nas.types.Held`) until a person has looked at it (`nas review`);
`collapse` holds nobody and tells the person. Each gives None, or one sentence with its figures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nas.settings import TripwireSettings
from nas.types import Fitness, Held, Trial

_NOBODY: Mapping[str, Fitness] = MappingProxyType({})


def held(
    trial: Trial,
    compressed_bits_per_byte: float | None,
    baselines: Mapping[str, Fitness],
    settings: TripwireSettings,
    accepted: Mapping[str, Fitness] = _NOBODY,
) -> Held | None:
    """What becomes of a score that is too good; None for any other outcome. Arguments as below."""
    fitness = trial.outcome
    if not isinstance(fitness, Fitness):
        return None
    if reason := entropy(fitness, compressed_bits_per_byte, settings):
        return Held("entropy", reason, fitness)
    if trial.purpose != "search":  # a baseline is what others leap over, and a confirmation may confirm a leap
        return None
    if reason := gap(fitness, baselines, settings):
        return Held("rescore", reason, fitness)
    if reason := leap(fitness, baselines, settings, accepted):
        return Held("leap", reason, fitness)
    return None


def leap(
    fitness: Fitness,
    baselines: Mapping[str, Fitness],
    settings: TripwireSettings,
    accepted: Mapping[str, Fitness] = _NOBODY,
) -> str | None:
    """A gain beyond what one mutation of a known architecture brings.

    Guards against a leak that the gate did not see. The published families lie within a few tenths of a bit of each
    other, so whoever beats the best of them by more than they differ among themselves has found either something
    remarkable or a way around the task. Trips on

        min_b bits(b) - bits(candidate) > max(leap * (max_b bits(b) - min_b bits(b)), least_leap)

    Args:
      fitness: of the candidate. Stopped early, it is held against what the baselines reached in the end all the same.
      baselines: name -> what the full budget made of it; without any there is nothing to leap over.
      accepted: name -> a leap that a person has accepted. The gain is then over the best of these too, so that the
        descendants of an accepted candidate need not all be looked at; the bound is the baselines' still.
    """
    if not baselines:
        return None
    bits = [baseline.bits_per_byte for baseline in baselines.values()]
    spread = max(bits) - min(bits)
    bound = max(settings.leap * spread, settings.least_leap)
    known = {**baselines, **accepted}
    best, bits_of_best = min(((name, known[name].bits_per_byte) for name in known), key=lambda pair: pair[1])
    gain = bits_of_best - fitness.bits_per_byte
    if gain <= bound:
        return None
    return (
        f"it gains {gain:.3f} bits per byte over {best} ({fitness.bits_per_byte:.3f} against {bits_of_best:.3f}); "
        f"up to {bound:.3f} pass without a look (spread of the baselines: {spread:.3f})"
    )


def entropy(fitness: Fitness, compressed_bits_per_byte: float | None, settings: TripwireSettings) -> str | None:
    """A loss below what the text can hold of information.

    Guards against a model that sees the byte it predicts, and against a broken loss. Bits per byte are the size of the
    text under the model as a compressor (Deletang et al. 2023, https://arxiv.org/abs/2309.10668). A briefly trained
    model of a few hundred thousand parameters stays above a strong general compressor, so one far below it knows the
    text from elsewhere. Trips on `bits(candidate) < entropy * compressed`.

    Args:
      compressed_bits_per_byte: what LZMA makes of the validation text; None where that is not known, and nothing trips.
    """
    if compressed_bits_per_byte is None or fitness.bits_per_byte >= settings.entropy * compressed_bits_per_byte:
        return None
    return (
        f"its {fitness.bits_per_byte:.3f} bits per byte are under {settings.entropy:g} of the "
        f"{compressed_bits_per_byte:.3f} that LZMA needs for the same text"
    )


def gap(fitness: Fitness, baselines: Mapping[str, Fitness], settings: TripwireSettings) -> str | None:
    """A model that knows the text it is measured on better than text of the same kind.

    Guards against validation windows that were written into the parameters: the training process holds their file.
    Rescoring measures the checkpoint on the split `reserve` too, which that process never had. Trips on

        held_out(candidate) - bits(candidate) > mean_b(held_out(b) - bits(b)) + gap
    """
    usual = [known for baseline in baselines.values() if (known := _gap(baseline)) is not None]
    own = _gap(fitness)
    if own is None or not usual or own <= sum(usual) / len(usual) + settings.gap:
        return None
    return (
        f"on text that its training never saw it needs {own:.3f} bits per byte more than on the validation windows; "
        f"the baselines need {sum(usual) / len(usual):.3f} more"
    )


def _gap(fitness: Fitness) -> float | None:
    held_out = fitness.held_out_bits_per_byte
    return None if held_out is None else held_out - fitness.bits_per_byte


def collapse(
    families: Sequence[str], operators: Sequence[str], settings: TripwireSettings
) -> dict[str, str | None] | None:
    """A search that only repeats itself.

    Guards against a budget spent on variants of one idea, which a falling loss does not show: 101 of the 106
    architectures that ASI-Arch ended with (Liu et al. 2025, https://arxiv.org/abs/2507.18074) were of one family.
    Trips when one family has a share of at least `settings.collapse` among the last `collapse_window` families, or one
    operator among as many last operators. Returns {"reason", "family": the one, or None where it is an operator}.

    Args:
      families: of the trained candidates, in the order in which they ended.
      operators: of the proposals, in the order in which they were made; empty where there is no choice of operators.
    """
    window = settings.collapse_window
    for values, of_what, kind in (
        (families, "trained candidates are of one family", "family"),
        (operators, "proposals are by one operator", "operator"),
    ):
        if len(values) < window:
            continue
        most, count = Counter(values[-window:]).most_common(1)[0]
        if count / window >= settings.collapse:
            reason = f"{count} of the last {window} {of_what}: the {kind} {most}"
            return {"reason": reason, "family": most if kind == "family" else None}
    return None
