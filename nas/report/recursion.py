"""Does the loop improve itself? Five measures over successive searches, each computed from their records alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from nas.fidelity import interval, spearman
from nas.report.account import Account
from nas.report.answers import share, verdict_on
from nas.report.tables import Table
from nas.statistics import Interval
from nas.terminal import printable
from nas.types import Fitness, Held

_UNSOUND = frozenset({"rescore", "certificate"})  # tripwires that refute what the gate or the training said


@dataclass(frozen=True)
class Measure:
    """One of the five.

    Attributes:
      definition: in one line.
      of: (a search, the searches before it) -> its value in words, with an interval or a word that it has none.
    """

    name: str
    definition: str
    of: Callable[[Account, Sequence[Account]], str]


def table(accounts: Sequence[Account]) -> Table:
    """A row a measure, a column a search, in the order given."""
    rows = [
        [m.name, m.definition, *(m.of(account, accounts[:place]) for place, account in enumerate(accounts))]
        for m in MEASURES
    ]
    return Table(("measure", "defined as", *(account.name for account in accounts)), rows)


def _adaptivity(account: Account, earlier: Sequence[Account]) -> str:
    drawn = [one for one in account.proposals if one.weights]
    first, second = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    pairs = []
    for name in account.operators:
        gains = [one.gain or 0.0 for one in first if printable(one.trial.candidate.operator) == name]
        if gains:
            before, after = (mean(one.weights.get(name, 0.0) for one in half) for half in (first, second))
            pairs.append((mean(gains), after - before))
    rho = spearman(pairs) if pairs else None
    if rho is None:
        return "not known: too few operators were tried, or no weight moved"
    low, high = interval(rho, len(pairs))
    return f"{rho:+.2f} [{low:+.2f}, {high:+.2f}] (n={len(pairs)} operators)"


def _retention(account: Account, earlier: Sequence[Account]) -> str:
    better = {
        verdict["id"]
        for search in earlier
        for verdict in search.verification.get("verdicts", ())
        if verdict["verdict"] == "better"
    }
    if not better:
        return "nothing to retain: no earlier search here has a verdict of better"
    here = {trial.candidate.id for trial in account.trials if trial.purpose == "baseline"}
    return share(len(better & here), len(better))


def _generalisation(account: Account, earlier: Sequence[Account]) -> str:
    verdict = verdict_on(account, account.best) if account.best else None
    if verdict is None:
        return "not known: not verified"
    found = [
        f"{printable(each['condition'])} {Interval(**each['gain'])}" for each in verdict["comparisons"] if each["gain"]
    ]
    return "; ".join(found) or "not known: nothing could be compared"


def _efficiency(account: Account, earlier: Sequence[Account]) -> str:
    if not account.baselines:
        return "not known: no baseline was trained"
    goal = account.baselines[0].outcome
    assert isinstance(goal, Fitness)
    spent = 0.0
    for one in account.attempts:
        spent += one.trial.cost.train_seconds / 60
        outcome = one.trial.outcome
        if one.trial.purpose != "search" or not one.whole or not isinstance(outcome, Fitness):
            continue
        if outcome.bits_per_byte < goal.bits_per_byte:
            return f"{spent:.1f} (one search, no interval)"
    return f"not in {account.device_minutes:.1f}"


def _safety(account: Account, earlier: Sequence[Account]) -> str:
    passed = [one.trial for one in account.proposals if isinstance(one.trial.outcome, Fitness | Held)]
    refuted = [t for t in passed if isinstance(t.outcome, Held) and t.outcome.tripwire in _UNSOUND]
    return share(len(refuted), len(passed))


MEASURES = (
    Measure(
        "adaptivity",
        "rank correlation, over operators, of the mean gain in a search's first half with how far the weight moved "
        "from the first half to the second",
        _adaptivity,
    ),
    Measure(
        "retention",
        "share of what earlier searches here have verified as better that is among this one's baselines",
        _retention,
    ),
    Measure(
        "generalisation",
        "verified gain of the best over the best baseline, bits per byte, under each condition: longer training, "
        "twice the width, another corpus, equal FLOPs",
        _generalisation,
    ),
    Measure(
        "efficiency",
        "device-minutes of training until a candidate was better than the best baseline, at the search's seed",
        _efficiency,
    ),
    Measure(
        "safety",
        "share of candidates with a certificate that was refuted after training: by rescoring, or looked at again",
        _safety,
    ),
)
