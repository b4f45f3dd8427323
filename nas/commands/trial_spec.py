"""What is trained for a trial of a search: by the search itself, and by whoever trains it again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nas.probe_trial import trial_probes
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace
from nas.tasks.corpus import Corpus
from nas.trial import TrialSpec, gate_arguments, make_spec
from nas.types import Budget, Candidate


def spec_of(
    candidate: Candidate,
    purpose: str,
    budget: Budget,
    settings: Settings,
    space: SearchSpace,
    corpus: Corpus,
    folder: Path,
    *,
    known: Mapping[str, str],
    reference_flops: float | None,
    contends_below: float | None,
    compiled: Path | None,
) -> TrialSpec:
    """A confirmation is of a candidate with a certificate; an outside reference needs none.

    Args:
      purpose: "baseline" | "search" | "confirm".
      folder: the trial's own.
      known, reference_flops: see `gate_arguments`. contends_below, compiled: see `TrialSpec`.
    """
    outside = {reference.id for reference in space.outside_references().values()}
    proposed = purpose == "search"
    gate = gate_arguments(settings, sorted(space.allowed_imports), known=dict(known), reference_flops=reference_flops)
    spec = make_spec(
        candidate.source,
        settings,
        corpus,
        gate=None if purpose == "confirm" or candidate.id in outside else gate,
        rungs=rung_steps(settings),
        floored=proposed,
        contends_below=contends_below,
        seed=budget.seed,
        folder=folder,
        compiled=compiled,
    )
    if purpose == "confirm":
        return spec
    probes = trial_probes(candidate.source, settings, folder)
    least = settings.probe.least if proposed and settings.probe.least else None
    return replace(spec, probes=probes, probes_first=settings.probe.first, least=least)
