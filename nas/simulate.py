"""Whole searches on a table of architectures that were all trained before: milliseconds each, without JAX.

`TableSpace` is a search space whose candidates are the lines of the table: children are made by the real space's own
operators, those that are not in the table are drawn again. So the engine's own `Search` runs on it as it is, with the
tabulated bits per byte as outcomes.
"""

import csv
import json
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nas.errors import UserError
from nas.journal import Event
from nas.meta import Posterior
from nas.noise import Noise, analysis_of_variance
from nas.search import Assignment, Search, rung_steps
from nas.settings import Settings
from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate, Cost, Fitness, Operator, Rung, Trial

Genome = tuple[str, ...]
_BEST_SHARE = 0.01
_SCORE = "bits_per_byte_"


@dataclass(frozen=True)
class Table:
    """What `nas tabulate` measured.

    Attributes:
      slots: what a genome has a part for.
      scores: genome -> bits per byte by training seed.
      families: genome -> family.
      flops: genome -> forward FLOPs of the whole model per token.
      aliases: combination of parts -> the genome that it comes to; also of each genome, itself.
    """

    slots: tuple[str, ...]
    scores: Mapping[Genome, tuple[float, ...]]
    families: Mapping[Genome, str]
    flops: Mapping[Genome, float]
    aliases: Mapping[Genome, Genome]

    @cached_property
    def ranked(self) -> list[Genome]:
        """Best first, by the mean over seeds."""
        return sorted(self.scores, key=lambda genome: sum(self.scores[genome]))

    @cached_property
    def best(self) -> frozenset[Genome]:
        """The best 1 %, at least one."""
        return frozenset(self.ranked[: max(1, round(_BEST_SHARE * len(self.ranked)))])

    @cached_property
    def regret(self) -> Mapping[Genome, float]:
        """Bits per byte by which the mean over seeds is above the table's best."""
        count, least = len(next(iter(self.scores.values()))), sum(self.scores[self.ranked[0]])
        return {genome: (sum(scores) - least) / count for genome, scores in self.scores.items()}

    def noise(self, step: int) -> Noise:
        """Of one score and of a difference, by all that was trained at several seeds."""
        rows = {str(number): dict(enumerate(scores)) for number, scores in enumerate(self.scores.values())}
        found = analysis_of_variance(rows)
        return Noise({step: found[0]}, {step: found[1]}) if found else Noise()


def read_table(path: Path) -> Table:
    """Reads PATH.csv and PATH.json of `nas tabulate`.

    Raises:
      UserError: with one sentence, if they are not there or are damaged.
    """
    try:
        report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("it has no lines")
        slots = tuple(report["slots"])
        genomes = [tuple(row[slot] for slot in slots) for row in rows]
        seeds = range(report["seeds"])
        scores = [tuple(float(row[f"{_SCORE}{seed}"]) for seed in seeds) for row in rows]
        aliases = {tuple(raw[: len(slots)]): tuple(raw[len(slots) + 1 :]) for raw in report["aliases"]}
        known = set(genomes)
        return Table(
            slots,
            dict(zip(genomes, scores, strict=True)),
            {genome: row["family"] for genome, row in zip(genomes, rows, strict=True)},
            {genome: float(row["flops_per_token"]) for genome, row in zip(genomes, rows, strict=True)},
            {**{raw: genome for raw, genome in aliases.items() if genome in known}, **{one: one for one in genomes}},
        )
    except FileNotFoundError as error:
        raise UserError(f"there is no table {error.filename}: nas tabulate makes it") from error
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"the table {path} is damaged ({error!r}): nas tabulate makes it anew") from error


class TableSpace:
    """The lines of a table as a search space. Satisfies `SearchSpace`.

    A candidate's source is a Python literal of its genome.
    """

    name = "table"
    notes = None
    contract = "A line of the table."
    allowed_imports: frozenset[str] = frozenset()

    def __init__(self, table: Table, space: SearchSpace):
        self.table = table
        self._space = space
        self._by_source = {source_of(genome): genome for genome in table.scores}
        self._rest = dict(space.describe(_least(space, table)))
        self.operators: Sequence[Operator] = [one for one in space.operators if one.parents == 2 or self._works(one)]
        self._starters = self._projected()
        self.reference = next(iter(self._starters))

    def genome_of(self, source: str) -> Genome:
        return self._by_source[source]

    def baselines(self) -> Mapping[str, Candidate]:
        return self._starters

    @property
    def starters(self) -> Sequence[str]:
        return tuple(self._starters)

    def outside_references(self) -> Mapping[str, Candidate]:
        return {}

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """The first of what the real space's operator would make that is in the table."""
        genomes = [self.describe(parent.source) for parent in parents[: operator.parents]]
        for variant in self.variants(operator, genomes, rng):
            child = tuple(variant[slot] for slot in self.table.slots)
            return Candidate(
                source_of(child), operator.name, tuple(parent.id for parent in parents[: operator.parents])
            )
        raise NotApplicable(f"{operator.name} makes nothing that is in the table")

    def compose(self, genome: Mapping[str, str]) -> Candidate:
        child = self._tabulated({**self._rest, **genome})
        if child is None:
            raise NotApplicable("it is not in the table")
        return Candidate(source_of(child), "composed")

    def variants(
        self, operator: Operator, genomes: Sequence[Mapping[str, str]], rng: random.Random
    ) -> Sequence[Mapping[str, str]]:
        """Of those that the real space gives, those that are in the table, as the lines that they come to."""
        whole = [{**self._rest, **genome} for genome in genomes]
        own = [tuple(genome[slot] for slot in self.table.slots) for genome in genomes]
        found: dict[Genome, None] = {}
        for variant in self._space.variants(operator, whole, rng):
            child = self._tabulated(variant)
            if child is not None and child not in own:
                found.setdefault(child)
        return [dict(zip(self.table.slots, child, strict=True)) for child in found]

    def describe(self, source: str) -> Mapping[str, str]:
        return dict(zip(self.table.slots, self._by_source[source], strict=True))

    def lacks(self, source: str) -> Sequence[str]:
        return []

    def context(self, operator: Operator, source: str) -> Sequence[str]:
        described, family = self.describe(source), self.family(source)
        return (described[operator.name], family) if operator.name in described else (family,)

    def family(self, source: str) -> str:
        return self.table.families[self._by_source[source]]

    def _tabulated(self, genome: Mapping[str, str]) -> Genome | None:
        """The line of this genome; None if there is none, or it has other parts in slots that the table holds fixed."""
        if any(genome[slot] != part for slot, part in self._rest.items() if slot not in self.table.slots):
            return None
        return self.table.aliases.get(tuple(genome[slot] for slot in self.table.slots))

    def _works(self, operator: Operator) -> bool:
        """Whether it can make anything that is in the table."""
        for genome in self.table.scores:
            try:
                self.mutate(operator, [Candidate(source_of(genome), "baseline")], random.Random(0))
                return True
            except NotApplicable:
                continue
        return False

    def _projected(self) -> Mapping[str, Candidate]:
        """The space's starters, as far as their parts are in the table, else with the first part of the slot."""
        parts = {slot: {genome[at] for genome in self.table.scores} for at, slot in enumerate(self.table.slots)}
        found: dict[Genome, str] = {}
        for name in self._space.starters:
            described = self._space.describe(self._space.baselines()[name].source)
            wanted = {slot: described[slot] for slot in self.table.slots if described[slot] in parts[slot]}
            genome = self._tabulated({**self._rest, **wanted})
            if genome:
                found.setdefault(genome, name)
        if not found:
            found[next(iter(self.table.scores))] = "first"
        return {name: Candidate(source_of(genome), "baseline", name=name) for genome, name in found.items()}


def _least(space: SearchSpace, table: Table) -> str:
    """A source of the table's least genome, for the slots that the table does not name."""
    return space.compose(dict(zip(table.slots, next(iter(table.scores)), strict=True))).source


def source_of(genome: Genome) -> str:
    return f"TokenMixer = {genome!r}\n"


# Searches


@dataclass(frozen=True)
class Run:
    """What one search tried, in order, each candidate once.

    Attributes:
      gains: (operator, how many had ended before, bits per byte gained over the parent, 0 for none beyond the noise),
        of each trial that had a parent.
      posterior: what it has learned of operators.
    """

    tried: Sequence[Genome]
    gains: Sequence[tuple[str, int, float]] = ()
    posterior: Posterior | None = None

    def evaluations_to(self, best: frozenset[Genome]) -> int | None:
        """How many candidates it had tried when one of these was among them; None if none was."""
        return next((number for number, genome in enumerate(self.tried, 1) if genome in best), None)


def random_search(space: TableSpace, trials: int, seed: int) -> Run:
    """Lines of the table, each once, in any order."""
    rng, genomes = random.Random(seed), sorted(space.table.scores)
    return Run(rng.sample(genomes, min(trials, len(genomes))))


def regularised_evolution(space: TableSpace, trials: int, seed: int, population: int = 20, sample: int = 5) -> Run:
    """Aging evolution (Real et al. 2019, https://arxiv.org/abs/1802.01548) with operators drawn evenly.

    It starts from the same candidates as the engine. The best of `sample` in the population has a child, and the oldest
    goes. A child that was tried before is not evaluated again.
    """
    rng = random.Random(seed)
    alive = deque(space.genome_of(one.source) for one in space.baselines().values())
    tried = dict.fromkeys(alive)
    for _ in range(50 * trials):
        if len(tried) >= trials:
            break
        parent = min(rng.sample(sorted(alive), min(sample, len(alive))), key=lambda one: space.table.scores[one][0])
        mate = rng.choice(sorted(alive))
        operator = rng.choice(list(space.operators))
        parents = [Candidate(source_of(one), "") for one in (parent, mate)][: operator.parents]
        try:
            child = space.genome_of(space.mutate(operator, parents, rng).source)
        except NotApplicable:
            continue
        if child in tried:
            continue
        tried[child] = None
        alive.append(child)
        if len(alive) > population:
            alive.popleft()
    return Run(list(tried))


def engine(space: TableSpace, settings: Settings, workers: int = 1, prior: Posterior | None = None) -> Run:
    """The engine's own search, with `workers` trials in flight; they end in the order in which they began."""
    gains: list[tuple[str, int, float]] = []

    def record(event: Event) -> None:
        if event["event"] == "trial" and event["gain"] is not None:
            gains.append((event["candidate"]["operator"], len(gains), event["gain"]))

    step = rung_steps(settings)[-1]
    search = Search(settings, space, record, noise=space.table.noise(step), prior=prior)
    running: deque[Assignment] = deque()
    while True:
        while len(running) < workers and (assignment := search.ask()):
            running.append(assignment)
        if not running:
            break
        _tell(search, space, running.popleft(), step)
    return Run(list(_tried(search, space)), gains, search.posterior())


def _tell(search: Search, space: TableSpace, assignment: Assignment, step: int) -> None:
    genome = space.genome_of(assignment.candidate.source)
    bits = space.table.scores[genome][0]
    outcome = Fitness(bits, step, -bits, 0.0, 0.0, 0, space.table.flops[genome], 0)
    rungs = (Rung(step, bits),)
    search.tell_rung(assignment.trial, rungs[0])
    search.tell(
        Trial(assignment.trial, assignment.candidate, assignment.purpose, assignment.budget, outcome, Cost(), rungs)
    )


def _tried(search: Search, space: TableSpace) -> Iterator[Genome]:
    seen: set[str] = set()
    for trial in search.trials.values():
        if isinstance(trial.outcome, Fitness) and trial.candidate.id not in seen:
            seen.add(trial.candidate.id)
            yield space.genome_of(trial.candidate.source)
