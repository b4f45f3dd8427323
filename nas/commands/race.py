"""`nas meta race`: searches that differ in how they choose, at the same seeds: who gets further with as many proposals?

nas search -m 'seed=range(0,10)' meta=foresight,uniform 'name=race-${meta.kind}-${seed}' search.trials=20
nas meta race results/race-*             best-so-far curves, the area under them, paired by seed; writes results/race.md

The area is the mean, over the proposals of a search, of the best bits per byte so far, from the best baseline on: what
was trained to the end counts, at its one seed. The shortest search says how many proposals are looked at.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.commands.folder import events_of, folder_of
from nas.commands.measuring import markdown_table, write_report
from nas.configuration import as_recorded
from nas.errors import UserError
from nas.journal import Event
from nas.settings import Settings
from nas.statistics import Interval, mean_interval
from nas.terminal import make_console
from nas.types import Fitness, trial_from_json

_FEWEST = 2  # pairs, without which there is no interval
_AT = (5, 10, 20, 50, 100, 200)  # proposals
Curve = list[float]  # best bits per byte after 0, 1, 2, ... proposals


def race(searches: Sequence[str], settings: Settings) -> int:
    """Compares each policy with the first one by name; shows and writes results_dir/race.md. Returns 0.

    Raises:
      UserError: with one sentence.
    """
    curves: dict[str, dict[int, Curve]] = defaultdict(dict)
    alike: set[str] = set()
    for search in searches:
        folder = folder_of(search, Path(settings.results_dir))
        events = events_of(folder)
        recorded = as_recorded(events[0]["config"])
        curve = best_so_far(events)
        if not curve:
            raise UserError(f"{folder.path} has no baseline that was trained to the end: leave it out")
        curves[recorded.meta.kind][recorded.seed] = curve
        alike.add(f"{recorded.model} {recorded.train} {recorded.corpus}")
    if len(alike) > 1:
        raise UserError("these searches differ in model, training or corpus: their bits per byte do not compare")
    kinds = sorted(curves)
    seeds = sorted(set.intersection(*(set(of_one) for of_one in curves.values())))
    if len(kinds) < 2 or len(seeds) < _FEWEST:
        raise UserError(f"there are {len(seeds)} seeds at which {' and '.join(kinds)} both searched: two are the least")
    report = compared({kind: [curves[kind][seed] for seed in seeds] for kind in kinds}, seeds)
    lines = _markdown(report)
    path = write_report(settings, "race", report, "\n".join(lines))
    make_console().print("\n".join([*lines, f"written to {path}"]), markup=False, soft_wrap=True)
    return 0


def best_so_far(events: Sequence[Event]) -> Curve:
    """From the best baseline on; nothing if there is none. A copy counts as no proposal."""
    baselines: list[float] = []
    proposed: list[float | None] = []
    for event in events:
        if event["event"] != "trial":
            continue
        trial = trial_from_json(event)
        whole = isinstance(trial.outcome, Fitness) and trial.outcome.step >= trial.budget.steps
        bits = trial.outcome.bits_per_byte if isinstance(trial.outcome, Fitness) and whole else None
        if trial.purpose == "baseline" and bits is not None:
            baselines.append(bits)
        elif trial.purpose == "search" and getattr(trial.outcome, "check", None) != "novelty":
            proposed.append(bits)
    if not baselines:
        return []
    curve = [min(baselines)]
    for one in proposed:
        curve.append(curve[-1] if one is None else min(curve[-1], one))
    return curve


def compared(curves: Mapping[str, Sequence[Curve]], seeds: Sequence[int]) -> dict[str, Any]:
    """The area under each kind's curves, and the differences of each to the first kind's, paired by seed."""
    proposals = min(len(curve) for of_one in curves.values() for curve in of_one) - 1
    if not proposals:
        raise UserError("one of these searches has no proposal that ended")
    areas = {kind: [_area(curve, proposals) for curve in of_one] for kind, of_one in curves.items()}
    at = [one for one in _AT if one < proposals] + [proposals]
    first = next(iter(curves))
    return {
        "seeds": list(seeds),
        "proposals": proposals,
        "first": first,
        "policies": [
            {
                "policy": kind,
                "area": _words(mean_interval(areas[kind])),
                "gain of the first": None if kind == first else str(_paired(areas[kind], areas[first])),
                "best after": {
                    str(one): {
                        "mean": _words(mean_interval([curve[one] for curve in of_one])),
                        "gain of the first": None
                        if kind == first
                        else str(_paired([c[one] for c in of_one], [c[one] for c in curves[first]])),
                    }
                    for one in at
                },
                "areas": areas[kind],
            }
            for kind, of_one in curves.items()
        ],
    }


def _words(found: Interval) -> str:
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _area(curve: Curve, proposals: int) -> float:
    return sum(curve[1 : proposals + 1]) / proposals


def _paired(others: Sequence[float], own: Sequence[float]) -> Interval:
    return mean_interval([other - mine for other, mine in zip(others, own, strict=True)])


def _markdown(report: Mapping[str, Any]) -> list[str]:
    first, policies = report["first"], report["policies"]
    at = list(policies[0]["best after"])
    return [
        "# Real searches by different policies, paired by seed",
        "",
        f"{len(report['seeds'])} seeds; the first {report['proposals']} proposals of each search. Bits per byte of the "
        "best so far, trained to the end at one seed, from the best baseline on; the area is their mean over the "
        f"proposals. Gains of {first} over the other at the same seed: above none, {first} is better. Means with 95% "
        "intervals (Student's t).",
        "",
        *markdown_table(
            ["policy", "area under best so far", f"gain of {first}", *(f"best after {one}" for one in at)],
            [
                [
                    row["policy"],
                    row["area"],
                    row["gain of the first"] or "",
                    *(_cell(row["best after"][one]) for one in at),
                ]
                for row in policies
            ],
        ),
    ]


def _cell(found: Mapping[str, str | None]) -> str:
    gain = found["gain of the first"]
    return f"{found['mean']} (gain {gain})" if gain else str(found["mean"])
