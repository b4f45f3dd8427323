"""Who may become a parent: islands with migration, and the best of every behaviour on each.

Islands (Tanese 1989) search apart, so that one early success does not become everybody's parent; now and then the best
of an island move on to the next. On an island, parents are the best few, and beside them the best of every behaviour:
a quality-diversity archive (MAP-Elites, Mouret and Clune 2015, https://arxiv.org/abs/1504.04909) over what matters
here: the family of the state transition, the size of the state, and what probe tasks say of recall and of state
tracking. Its cells are categories of which each keeps one trial, a dictionary; pyribs has grids of real-valued
solutions, which programs are not.

Nothing here forgets a trial: what is nobody's parent any more is still in the archive, the journal and the report.
"""

import bisect
import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from nas.archive import rank_key
from nas.settings import SearchSettings
from nas.types import Candidate, Fitness, Trial

Behaviour = tuple[str, ...]
RECALL = ("in_context_recall", "fuzzy_recall", "noisy_recall", "selective_copying", "mqar", "induction")
TRACKING = ("parity", "s5", "a5")
_NOBODY: Mapping[str, int] = MappingProxyType({})
_LEVELS = 4  # of a probe score
_LOOKED_AHEAD_OF = 3


def behaviour(trial: Trial, family: str) -> Behaviour:
    """What kind of candidate it is: its family, the power of two of its state's bytes, and levels of probe scores."""
    state = trial.certificate.state_bytes if trial.certificate else None
    size = f"2^{math.ceil(math.log2(state))} bytes" if state else "unknown state"
    probes = trial.outcome.probes if isinstance(trial.outcome, Fitness) else {}
    return (
        family,
        size,
        *(_level(name, tasks, probes) for name, tasks in (("recall", RECALL), ("tracking", TRACKING))),
    )


def _level(name: str, tasks: Sequence[str], probes: Mapping[str, float]) -> str:
    scores = [probes[task] for task in tasks if task in probes]
    return f"{name} {int(_LEVELS * sum(scores) / len(scores))}/{_LEVELS}" if scores else f"{name} unknown"


@dataclass
class Island:
    """Trials that parents are chosen among, best first, and the best of each behaviour."""

    members: list[Trial] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # the members' candidates
    cells: dict[Behaviour, Trial] = field(default_factory=dict)

    def put(self, trial: Trial, kind: Behaviour) -> None:
        bisect.insort(self.members, trial, key=rank_key)
        self.names.add(trial.candidate.id)
        if kind not in self.cells or rank_key(trial) < rank_key(self.cells[kind]):
            self.cells[kind] = trial

    def best(self) -> Trial | None:
        return self.members[0] if self.members else None


class Population:
    """The islands of one search. A function of what it is told, in that order.

    Args:
      outside: ids of candidates that are trained for comparison alone: they are nobody's parents.
    """

    def __init__(self, settings: SearchSettings, outside: Collection[str] = ()):
        self._settings = settings
        self._outside = frozenset(outside)
        self._kinds: dict[str, Behaviour] = {}  # candidate id -> its behaviour
        self._home: dict[str, int | None] = {}  # candidate id -> the island it was born on; None: all
        self._children: Counter[str] = Counter()
        self._landed = 0  # children, since the last migration
        self.islands = [Island() for _ in range(settings.islands)]

    # what is told

    def land(self, trial: Trial, family: str, island: int | None) -> None:
        """A trained trial comes to the island on which its parents were chosen; a baseline to all of them.

        A guest comes as a migrant does, and brings no migration nearer.
        """
        candidate = trial.candidate.id
        if not isinstance(trial.outcome, Fitness) or candidate in self._outside or candidate in self._home:
            return
        self._kinds[candidate], self._home[candidate] = behaviour(trial, family), island
        for number, one in enumerate(self.islands):
            if island in (None, number):
                one.put(trial, self._kinds[candidate])
        self._landed += island is not None and trial.purpose != "guest"
        if len(self.islands) > 1 and self._landed >= self._settings.migrate_every:
            self._landed = 0
            self._migrate()

    def note_child(self, candidate: Candidate) -> None:
        """Counts a proposal against its parents, whatever becomes of it."""
        self._children.update(candidate.parents)

    def rescore(self, trials: Mapping[str, Trial]) -> None:
        """Ranks anew: candidate id -> its trial with its new score."""
        for island in self.islands:
            members, island.members, island.cells = island.members, [], {}
            for trial in members:
                self._put(island, trials.get(trial.candidate.id, trial))

    def restart(self, family: str) -> int:
        """Answers a collapse onto one family: the worst island begins again without it.

        What stays there is the best of every other family. With a single island the family goes from it too, but not
        from the archive: what is made of the others has to do better to bring it back. Returns the island's number.
        """
        number = max(range(len(self.islands)), key=lambda one: self._rank_of_best(one))
        old, self.islands[number] = self.islands[number], Island()
        seen: set[str] = set()
        for trial in old.members:
            kind = self._kinds[trial.candidate.id][0]
            if kind != family and kind not in seen:
                seen.add(kind)
                self._put(self.islands[number], trial)
        if not self.islands[number].members:  # there is nothing else
            self.islands[number] = old
        return number

    # who becomes a parent

    def parents_of(self, island: int, breadth: int = 1) -> list[Trial]:
        """Those a child on this island can be made of, best first: its elites, and the best of each behaviour.

        Args:
          breadth: how many times `search.elites` are elites.
        """
        one = self.islands[island]
        elites = one.members[: breadth * self._settings.elites]
        known = {trial.candidate.id for trial in elites}
        rest = [trial for trial in one.cells.values() if trial.candidate.id not in known]
        return [*elites, *sorted(rest, key=rank_key)]

    def doublings(self, island: int) -> int:
        """How often the number of elites has to be doubled until all who were trained are among them; at least once."""
        return max(1, math.ceil(math.log2(max(1, len(self.islands[island].members)) / self._settings.elites)))

    def looked_ahead_of(self, rng: random.Random, island: int) -> list[Candidate]:
        """Those among whose possible children a policy that looks ahead chooses: the best few.

        With probability `explore` any one of `parents_of`. More of the best would be more that is uncertain, and draws
        of what is uncertain would be followed away from the best.
        """
        pool = self.parents_of(island)
        if pool and self._settings.explore and rng.random() < self._settings.explore:
            return [rng.choice(pool).candidate]
        return [trial.candidate for trial in pool[:_LOOKED_AHEAD_OF]]

    def choose_parents(
        self,
        count: int,
        rng: random.Random,
        island: int,
        given: Sequence[Candidate] = (),
        expected: Mapping[str, int] = _NOBODY,
        breadth: int = 1,
    ) -> list[Candidate]:
        """`count` different parents, `given` ones first; fewer if there are fewer.

        With probability `explore` any of `parents_of`; else the better and the less often used are likelier: the weight
        of rank r with c children is 1 / ((1 + r) (1 + c)).

        Args:
          expected: candidate id -> children that are being made of it.
          breadth: as `parents_of` takes it.
        """
        chosen = list(given)[:count]
        if len(chosen) == count:
            return chosen
        taken = {candidate.id for candidate in chosen}
        ranked = enumerate(self.parents_of(island, breadth))
        pool = [(rank, trial) for rank, trial in ranked if trial.candidate.id not in taken]
        while pool and len(chosen) < count:
            used = [self._children[trial.candidate.id] + expected.get(trial.candidate.id, 0) for _, trial in pool]
            weights = [1 / ((1 + rank) * (1 + children)) for (rank, _), children in zip(pool, used, strict=True)]
            if self._settings.explore and rng.random() < self._settings.explore:
                weights = [1.0] * len(pool)
            index = rng.choices(range(len(pool)), weights)[0]
            chosen.append(pool.pop(index)[1].candidate)
        return chosen

    def island_of(self, proposal: int) -> int:
        """Where the proposal of this number is made: the islands take turns."""
        return proposal % len(self.islands)

    # within

    def _put(self, island: Island, trial: Trial) -> None:
        island.put(trial, self._kinds[trial.candidate.id])

    def _migrate(self) -> None:
        """The best of each island come to the next one too, in a ring."""
        best = [island.members[: self._settings.migrants] for island in self.islands]
        for number, migrants in enumerate(best):
            there = self.islands[(number + 1) % len(self.islands)]
            for trial in migrants:
                if trial.candidate.id not in there.names:
                    self._put(there, trial)

    def _rank_of_best(self, number: int) -> tuple[bool, tuple[int, float, str] | tuple[()]]:
        best = self.islands[number].best()
        return best is not None, rank_key(best) if best else ()
