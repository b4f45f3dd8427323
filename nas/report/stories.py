"""What the page tells of one trial when its mark is clicked."""

import difflib
from collections.abc import Mapping
from typing import Any

from nas.archive import curve_of
from nas.report.account import Account, Attempt
from nas.terminal import printable, visible
from nas.types import Candidate, Fitness, Held

_REASON = 4_000  # characters: of a traceback its end
_DIFF = 20_000


def stories(account: Account) -> dict[str, dict[str, Any]]:
    """Trial -> its story: texts and numbers, nothing that is markup."""
    candidates: dict[str, Candidate] = {}
    tried: dict[str, str] = {}
    told = [*account.attempts, *account.guests]
    for trial in (one.trial for one in told):
        candidates.setdefault(trial.candidate.id, trial.candidate)
        tried.setdefault(trial.candidate.id, trial.id)
    return {one.trial.id: _story(one, candidates, tried) for one in told}


def _story(one: Attempt, candidates: Mapping[str, Candidate], tried: Mapping[str, str]) -> dict[str, Any]:
    trial, candidate, outcome = one.trial, one.trial.candidate, one.trial.outcome
    parent = candidates.get(candidate.parents[0]) if candidate.parents else None
    return {
        "title": f"{trial.id}  {one.name}",
        "facts": [[name, value] for name, value in _facts(one, tried) if value],
        "checks": []
        if trial.certificate is None
        else [[printable(k), printable(v)] for k, v in trial.certificate.checks.items()],
        "motivation": visible(candidate.motivation),
        "reason": visible(getattr(outcome, "reason", ""))[-_REASON:],
        "diff": visible(diff(parent, candidate))[:_DIFF] if parent else "",
    }


def _facts(one: Attempt, tried: Mapping[str, str]) -> list[tuple[str, str]]:
    trial, candidate = one.trial, one.trial.candidate
    measured = trial.outcome.fitness if isinstance(trial.outcome, Held) else trial.outcome
    facts = [
        ("candidate", candidate.id),
        ("made by", f"{printable(candidate.operator)}, {one.author or printable(candidate.proposer)}"),
        ("from", ", ".join(f"{tried.get(parent, 'another search')} ({parent})" for parent in candidate.parents)),
        ("purpose", trial.purpose),
        ("outcome", one.kind),
    ]
    if isinstance(measured, Fitness):
        facts += [
            (
                "bits per byte",
                f"{measured.bits_per_byte:.4f} ± {measured.stderr:.4f} (standard error over text; one seed)",
            ),
            (
                "on held-out text",
                "" if measured.held_out_bits_per_byte is None else f"{measured.held_out_bits_per_byte:.4f}",
            ),
            ("steps", f"{measured.step} of {trial.budget.steps}, seed {trial.budget.seed}"),
            ("learning rate", "" if measured.learning_rate is None else f"{measured.learning_rate:g}"),
            ("tokens/s", f"{measured.tokens_per_second:,.0f}" if measured.tokens_per_second else ""),
            ("FLOPs/token", f"{measured.flops_per_token:,.0f}"),
            ("parameters", f"{measured.params:,}"),
            ("rungs", ", ".join(f"{step}: {bits:.4f}" for step, bits in sorted(curve_of(trial).items()))),
        ]
    if trial.certificate and trial.certificate.state_bytes is not None:
        facts.append(("state", f"{trial.certificate.state_bytes:,} bytes"))
    if one.gain is not None:
        facts.append(("gain over parent", f"{one.gain:+.4f}" if one.gain else "within the noise, or none"))
    if candidate.predicted_gain is not None:
        facts.append(("predicted gain", f"{candidate.predicted_gain:+.4f}"))
    cost = trial.cost
    facts.append(
        ("cost", f"{cost.total_seconds:.1f} s: gate {cost.gate_seconds:.1f}, training {cost.train_seconds:.1f}")
    )
    return facts


def diff(parent: Candidate, child: Candidate) -> str:
    """A unified diff of two sources."""
    old, new = parent.source.splitlines(), child.source.splitlines()
    return "\n".join(difflib.unified_diff(old, new, f"{parent.id}.py", f"{child.id}.py", lineterm="", n=2))
