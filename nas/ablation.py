"""Which changes of a lineage to take out again, and how: by a three-way merge of the sources.

A change is the step from a parent to its child. What the winner would be without it: the difference between child and
winner, applied to the parent. Where later changes stand on this one the merge conflicts, and it can't be removed by
itself: then, where all that it is made of has a name in the space, it is put together of the same parts with those of
the parent in their place. The merge is of canonical sources, so that comments and docstrings never conflict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from merge3 import Merge3

from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate, Trial, canonical_source, source_id

_BETWEEN = "#\n"  # no canonical source has a comment


@dataclass(frozen=True)
class Change:
    """One step of a lineage.

    Attributes:
      trial: that tried the child.
      child, parent: its sources. Of a crossover the first parent: the change is what it took from the second.
    """

    trial: str
    operator: str
    child: Candidate
    parent: Candidate


@dataclass(frozen=True)
class Kept:
    """A change that can't be removed by itself, and why, in a sentence."""

    reason: str


def lineage(winner: Candidate, trials: Sequence[Trial]) -> list[Change]:
    """Every change between the baselines and the winner, the latest first; both lines of a crossover.

    Ancestors that the search did not try have no step to them; guests among `trials` are where a line begins, as
    baselines are: how they came about is another search's to say.
    """
    known: dict[str, Trial] = {}
    for tried in trials:
        known.setdefault(tried.candidate.id, tried)
    changes: dict[str, Change] = {}
    left = [winner.id]
    while left:
        name = left.pop(0)
        trial = known.get(name)
        if trial is None or name in changes or trial.purpose in ("baseline", "guest"):
            continue
        parents = [known[parent].candidate for parent in trial.candidate.parents if parent in known]
        if parents:
            changes[name] = Change(trial.id, trial.candidate.operator, trial.candidate, parents[0])
        left += [parent.id for parent in parents]
    return sorted(changes.values(), key=lambda change: change.trial, reverse=True)


def without(change: Change, winner: Candidate, space: SearchSpace) -> Candidate | Kept:
    """The winner without one change of its lineage."""
    merged = _merged(change, winner)
    return _recomposed(change, winner, space, merged) if isinstance(merged, Kept) else merged


def _recomposed(change: Change, winner: Candidate, space: SearchSpace, kept: Kept) -> Candidate | Kept:
    """With the parent's parts in all slots that the change filled and no later one has; `kept` if that says nothing."""
    before, after, now = (space.describe(one.source) for one in (change.parent, change.child, winner))
    back = {slot: part for slot, part in before.items() if after.get(slot) == now.get(slot) != part}
    try:
        composed = space.compose({**now, **back}) if back else winner
    except NotApplicable:
        return kept
    if dict(space.describe(composed.source)) != {**now, **back} or composed.id == winner.id:
        return kept
    reason = f"without {change.operator} of {change.trial}, put together of parts"
    return Candidate(composed.source, "ablation", (winner.id,), "verify", reason)


def _merged(change: Change, winner: Candidate) -> Candidate | Kept:
    try:
        base, ours, theirs = (_lines(source.source) for source in (change.child, winner, change.parent))
    except (SyntaxError, ValueError, RecursionError) as error:
        return Kept(f"its sources can't be read: {error}")
    merged: list[str] = []
    for group in Merge3(base, ours, theirs, sequence_matcher=_Matcher).merge_groups():  # type: ignore[arg-type]
        if group[0] == "conflict":
            return Kept(f"later changes stand on it, first in {_words(group[1:])}")
        merged += group[1]
    source = "".join(line for line in merged if line != _BETWEEN)
    if source_id(source) == winner.id:
        return Kept("a later change has undone it: nothing of it is left")
    return Candidate(source, "ablation", (winner.id,), "verify", f"without {change.operator} of {change.trial}")


def _lines(source: str) -> list[str]:
    """With something unchanged between any two: else changes of two neighbouring lines would conflict."""
    lines = canonical_source(source).splitlines()
    return [part for line in lines for part in (f"{line}\n", _BETWEEN)]


class _Matcher(SequenceMatcher[str]):
    def __init__(self, junk: None, ours: Sequence[str], theirs: Sequence[str]):
        super().__init__(junk, ours, theirs, autojunk=False)  # it would take the separators for junk


def _words(texts: Sequence[Sequence[str]]) -> str:
    """The first line that is different, for a person."""
    lines = [line.strip() for text in texts for line in text if line.strip() and line != _BETWEEN]
    return repr(lines[0][:80]) if lines else "an empty line"
