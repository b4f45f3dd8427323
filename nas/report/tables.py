"""The page's tables: what a chart would only make harder to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.report.account import Account, name_of
from nas.report.answers import failures_of, often, share, step_in_words, unsigned
from nas.report.stories import diff
from nas.statistics import Interval, mean_interval
from nas.terminal import printable
from nas.types import Fitness, Trial
from nas.verify import trained

_TOP = 10


@dataclass(frozen=True)
class Table:
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Step:
    """One change on the way to the best: what it was, what it gained, what it did to the source."""

    title: str
    gain: str
    motivation: str
    diff: str


def leaders(account: Account) -> Table:
    """The ten best candidates and all baselines, best first at the search's seed."""
    headers = ("", "trial", "at the search's seed", "at fresh seeds", "tokens/s", "FLOPs/token", "state, bytes")
    chosen = [*trained(account.trials, "search")[:_TOP], *account.baselines]
    chosen.sort(key=lambda trial: trial.outcome.bits_per_byte if isinstance(trial.outcome, Fitness) else 0.0)
    return Table(headers, [_leader(account, trial) for trial in chosen])


def _leader(account: Account, trial: Trial) -> list[str]:
    fitness = trial.outcome
    assert isinstance(fitness, Fitness)
    fresh = [bits for seed, bits in account.by_seed(trial.candidate).items() if seed != trial.budget.seed]
    best = " (the best)" if account.best and trial.id == account.best.id else ""
    return [
        name_of(trial.candidate) + (" (baseline)" if trial.purpose == "baseline" else best),
        trial.id,
        f"{fitness.bits_per_byte:.4f}",
        unsigned(mean_interval(fresh)) if len(fresh) > 1 else f"{fresh[0]:.4f} (n=1, no interval)" if fresh else "none",
        f"{fitness.tokens_per_second:,.0f}",
        f"{fitness.flops_per_token:,.0f}",
        _state(trial),
    ]


def verdicts(account: Account) -> Table:
    """What verification says of each contender; no rows where there is none."""
    headers = ("contender", "verdict", "gain", "p, corrected", "under other conditions", "why")
    rows = [
        [
            printable(verdict["name"]),
            printable(verdict["verdict"]),
            _compared(verdict["comparisons"][0]),
            f"{verdict['p']:.3g}",
            "; ".join(f"{printable(each['condition'])} {_compared(each)}" for each in verdict["comparisons"][1:])
            or "none",
            printable(verdict["why"]),
        ]
        for verdict in account.verification.get("verdicts", ())
    ]
    return Table(headers, rows)


def _compared(comparison: Mapping[str, Any]) -> str:
    gain = comparison["gain"]
    return str(Interval(**gain)) if gain else f"failed: {printable(str(comparison['failure']))}"


def terms(account: Account) -> str:
    """Under what they were verified."""
    report = account.verification
    condition = (report.get("conditions") or [{}])[0]
    return (
        f"Against {printable(report['opponent'])}, the best baseline on validation after the same learning rates were "
        f"tried for everybody; then all are trained at {len(report.get('seeds', ()))} fresh seeds"
        + (f" for {condition['steps']} steps" if "steps" in condition else "")
        + " and scored on test text that no search has seen. Differences are paired by seed and text; their 95% "
        f"intervals are not corrected, p is, for {len(report['verdicts'])} contenders"
        + (f" ({printable(report['correction'])})" if "correction" in report else "")
        + ". Gains in bits per byte."
    )


def _state(trial: Trial) -> str:
    if trial.certificate is None:
        return ""
    size = trial.certificate.state_bytes
    return "grows" if size is None else f"{size:,}"


def failures(account: Account) -> Table:
    rows = [
        [kind, share(len(those), len(account.proposals)), often(those), ", ".join(trial.id for trial in those[:6])]
        for kind, those in failures_of(account)
    ]
    return Table(("failure", "of all candidates", "most often", "for example"), rows)


def path(account: Account) -> list[Step]:
    """From the baseline to the best."""
    effects = {row["trial"]: row for row in account.verification.get("ablations", ())}
    return [
        Step(
            f"{printable(change.operator)}, {change.trial}: {change.parent.id} to {change.child.id}",
            _gain(step_in_words(account, change), effects.get(change.trial)),
            change.child.motivation,
            diff(change.parent, change.child),
        )
        for change in account.path
    ]


def _gain(over: str, ablation: Mapping[str, Any] | None) -> str:
    said = f"Over its parent, at one seed (no interval): {over}."
    if not ablation:
        return f"{said} Not ablated."
    effect = ablation["effect"]
    if effect:
        return f"{said} Taken out of the winner, that loses {Interval(**effect)} bits per byte."
    return f"{said} It can't be taken out by itself: {printable(str(ablation['reason']))}"


def certificate(account: Account) -> Table:
    """Of the best."""
    found = account.best.certificate if account.best else None
    rows = [] if found is None else [[name, printable(seen)] for name, seen in found.checks.items()]
    return Table(("check", "what was seen"), rows)
