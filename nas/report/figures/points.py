"""One row a finished trial, for the figures that show trials."""

from typing import Any

from nas.report.account import Account, Attempt, is_copy
from nas.report.figures.figure import Rows, short
from nas.terminal import printable
from nas.types import Fitness


def points(account: Account) -> Rows:
    """Of every finished trial but copies of earlier ones, with what was spent by then."""
    device = 0.0
    rows: list[dict[str, Any]] = []
    for attempt in account.attempts:
        device += attempt.trial.cost.train_seconds / 60
        if not is_copy(attempt.trial):
            rows.append({**_row(attempt), "place": len(rows), "device": short(device)})
    return rows


def _row(attempt: Attempt) -> dict[str, Any]:
    trial, outcome = attempt.trial, attempt.trial.outcome
    row = {
        "trial": trial.id,
        "name": attempt.name,
        "operator": printable(trial.candidate.operator),
        "author": attempt.author,
        "kind": kind_of(attempt),
        "what": attempt.kind,
        "minutes": short(attempt.ended),
    }
    if isinstance(outcome, Fitness):
        row |= {
            "bits": short(outcome.bits_per_byte),
            "step": outcome.step,
            "speed": short(outcome.tokens_per_second, 4),
            "memory": short(outcome.peak_bytes / 2**20, 4),
            "flops": short(outcome.flops_per_token, 4),
            "state": trial.certificate.state_bytes if trial.certificate else None,
            "whole": attempt.whole,
        }
    return row


def kind_of(attempt: Attempt) -> str:
    """One of `KINDS`."""
    if attempt.trial.purpose == "confirm":
        return "fresh seed"
    if attempt.trial.purpose == "baseline" and isinstance(attempt.trial.outcome, Fitness):
        return "baseline"
    return attempt.kind.split(":")[0]


TIPS = ("trial:N", "name:N", "operator:N", "what:N", "bits:Q")
