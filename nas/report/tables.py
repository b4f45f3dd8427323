"""The page's tables: what a chart would only make harder to read."""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.report.account import Account, name_of
from nas.report.answers import failures_of, often, share, unsigned, verdict_on
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
    """The ten best candidates and all baselines, best first."""
    headers = ("", "trial", "bits per byte", "verdict", "tokens/s", "FLOPs/token", "state, bytes", "parameters")
    chosen = [*trained(account.trials, "search")[:_TOP], *account.baselines]
    chosen.sort(key=lambda trial: trial.outcome.bits_per_byte if isinstance(trial.outcome, Fitness) else 0.0)
    return Table(headers, [_leader(account, trial) for trial in chosen])


def _leader(account: Account, trial: Trial) -> list[str]:
    fitness = trial.outcome
    assert isinstance(fitness, Fitness)
    fresh = [bits for seed, bits in account.by_seed(trial.candidate).items() if seed != trial.budget.seed]
    verdict = verdict_on(account, trial)
    return [
        name_of(trial.candidate) + (" (baseline)" if trial.purpose == "baseline" else ""),
        trial.id,
        unsigned(mean_interval(fresh)) if len(fresh) > 1 else f"{fitness.bits_per_byte:.4f} (one seed, no interval)",
        printable(verdict["verdict"]) if verdict else "not verified",
        f"{fitness.tokens_per_second:,.0f}",
        f"{fitness.flops_per_token:,.0f}",
        _state(trial),
        f"{fitness.params:,}",
    ]


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
    gains = {one.trial.id: one.gain for one in account.attempts}
    return [
        Step(
            f"{printable(change.operator)}, {change.trial}: {change.parent.id} to {change.child.id}",
            _gain(gains.get(change.trial), effects.get(change.trial)),
            change.child.motivation,
            diff(change.parent, change.child),
        )
        for change in account.path
    ]


def _gain(gain: float | None, ablation: dict[str, object] | None) -> str:
    over = "no gain was measured" if gain is None else f"{gain:+.4f} bits per byte" if gain else "within the noise"
    said = f"Over its parent, at one seed (no interval): {over}."
    if not ablation:
        return f"{said} Not ablated."
    effect = ablation["effect"]
    if isinstance(effect, dict):
        return f"{said} Taken out of the winner, that loses {Interval(**effect)} bits per byte."
    return f"{said} It can't be taken out by itself: {printable(str(ablation['reason']))}"


def certificate(account: Account) -> Table:
    """Of the best."""
    found = account.best.certificate if account.best else None
    rows = [] if found is None else [[name, printable(seen)] for name, seen in found.checks.items()]
    return Table(("check", "what was seen"), rows)
