"""A search without training: a space whose programs are four numbers, and outcomes that follow from their ids."""

import json
import random
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.journal import Event
from nas.search import Assignment, Search, rung_steps
from nas.settings import MetaSettings, SearchSettings, Settings, TrainSettings, TripwireSettings
from nas.space import NotApplicable
from nas.types import Candidate, Certificate, Cost, Crashed, Fitness, Operator, Outcome, Rejected, Rung, Trial

SLOTS = ("decay", "write", "read", "norm")


def source_of(genes: Sequence[int]) -> str:
    return "class TokenMixer:\n" + "".join(f"    {slot} = {gene}\n" for slot, gene in zip(SLOTS, genes, strict=True))


def genes_of(source: str) -> list[int]:
    return [int(gene) for gene in re.findall(r"= (\d+)", source)]


class FakeSpace:
    """Slots with `values` values each: small enough that proposals repeat what was tried. Satisfies `SearchSpace`."""

    name = "fake"
    notes = None
    contract = "A class TokenMixer with four numbers."
    allowed_imports = frozenset({"math"})
    reference = "strong"

    def __init__(self, values: int = 5):
        self._values = values
        self.operators = (
            *(Operator(slot, f"Changes {slot}.") for slot in SLOTS),
            Operator("crossover", "Takes slots of a second parent.", parents=2),
            Operator("simplify", "Takes out what is not zero already."),
        )
        genes = {"plain": (0, 0, 0, 0), "strong": (1, 1, 0, 0), "third": (0, 1, 0, 1)}
        self._baselines = {name: Candidate(source_of(g), "baseline", name=name) for name, g in genes.items()}
        self._outside = {"attention": Candidate(source_of((99, 99, 99, 99)), "baseline", name="attention")}

    def baselines(self) -> Mapping[str, Candidate]:
        return self._baselines

    @property
    def starters(self) -> Sequence[str]:
        return tuple(self._baselines)

    def outside_references(self) -> Mapping[str, Candidate]:
        return self._outside

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        genes = genes_of(parents[0].source)
        if operator.name == "crossover":
            other = genes_of(parents[1].source)
            child = [rng.choice(pair) for pair in zip(genes, other, strict=True)]
        elif operator.name == "simplify":
            used = [slot for slot, gene in enumerate(genes) if gene]
            if not used:
                raise NotApplicable("nothing to take out")
            child = list(genes)
            child[rng.choice(used)] = 0
        else:
            child = list(genes)
            child[SLOTS.index(operator.name)] = rng.randrange(self._values)
        ids = tuple(parent.id for parent in parents[: operator.parents])
        return Candidate(source_of(child), operator.name, ids, "grammar", f"{operator.name} of {parents[0].id}")

    def describe(self, source: str) -> Mapping[str, str]:
        return dict(zip(SLOTS, map(str, genes_of(source)), strict=False))  # of a broken source, what there is

    def lacks(self, source: str) -> Sequence[str]:
        return [slot for slot, gene in self.describe(source).items() if gene == "0"]

    def compose(self, genome: Mapping[str, str]) -> Candidate:
        return Candidate(source_of([int(genome.get(slot, "0")) for slot in SLOTS]), "composed")

    def variants(
        self, operator: Operator, genomes: Sequence[Mapping[str, str]], rng: random.Random
    ) -> Sequence[Mapping[str, str]]:
        try:
            return [self.describe(self.mutate(operator, [self.compose(one) for one in genomes], rng).source)]
        except NotApplicable:
            return []

    def context(self, operator: Operator, source: str) -> Sequence[str]:
        return (self.describe(source)[operator.name],) if operator.name in SLOTS else ()

    def family(self, source: str) -> str:
        return "".join(str(gene % 10) for gene in genes_of(source)[:1])


class Barren(FakeSpace):
    """A space in which no operator ever finds anything to change."""

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        raise NotApplicable("nothing here")


TRUSTING = TripwireSettings(least_leap=100.0, collapse=1.0, collapse_window=100_000)  # nothing trips


def make_settings(meta: str = "ducb", tripwire: TripwireSettings = TRUSTING, **search: Any) -> Settings:
    return Settings(
        seed=3,
        search=SearchSettings(**{"noise_baselines": 1, **search}),
        meta=MetaSettings(meta),
        train=TrainSettings(steps=40),
        tripwire=tripwire,
    )


def outcome_of(assignment: Assignment) -> Outcome:
    """What becomes of a trial: every kind of outcome, by the candidate's id alone; baselines are always trained."""
    number = int(assignment.candidate.id, 16)
    if assignment.purpose == "search":
        kinds: dict[int, Outcome] = {
            0: Rejected("causality", "output 17 moved when input 40 changed"),
            1: Crashed("diverged", "the loss was not finite"),
            2: Crashed("infrastructure", "its worker was lost"),
        }
        if number % 9 in kinds:
            return kinds[number % 9]
    return fitness(bits(number, assignment.budget.seed), assignment.budget.steps)


def bits(number: int, seed: int) -> float:
    return 2.0 + (number % 997) / 997 + 0.01 * ((number // 997 + 7 * seed) % 11) / 11


def fitness(bits_per_byte: float, step: int = 40) -> Fitness:
    return Fitness(bits_per_byte, step, -bits_per_byte, 0.01, 1e4, 2**30, 1e6, 10_000)


class Worker:
    """Runs trials on no machine at all, one event at a time, as Ray and the training would tell of them.

    Args:
      stops: whether a scheduler stops every fifth candidate at its first rung.
      outcome: assignment -> outcome.
      certificate: assignment -> certificate, of a trial that has one.
    """

    def __init__(
        self,
        search: Search,
        stops: bool = True,
        outcome: Callable[[Assignment], Outcome] = outcome_of,
        certificate: Callable[[Assignment], Certificate | None] = lambda assignment: None,
    ):
        self._certificate = certificate
        self._search = search
        self._stops = stops
        self._outcome = outcome

    def steps(self, assignment: Assignment) -> list[Callable[[], None]]:
        """What will be told of this trial, in order: rungs, but those measured before an interruption, then the end."""
        outcome, stopped = self._outcome(assignment), False
        rungs = list(rung_steps(self._search.settings)) if isinstance(outcome, Fitness) else []
        if rungs and self._stops and assignment.purpose == "search" and int(assignment.candidate.id, 16) % 5 == 0:
            rungs, stopped = rungs[:1], True
        measured = [Rung(step, getattr(outcome, "bits_per_byte", 0.0) + 1 / step, 1.0, 1e4) for step in rungs]
        if isinstance(outcome, Fitness):
            outcome = replace(outcome, step=rungs[-1])
        done = max((rung.step for rung in assignment.rungs), default=0)

        def end() -> None:
            self._search.tell(
                Trial(
                    assignment.trial,
                    assignment.candidate,
                    assignment.purpose,
                    assignment.budget,
                    outcome,
                    Cost(1.0, 10.0, 12.0),
                    self._search.rungs_of(assignment.trial),
                    self._certificate(assignment),
                    stopped=stopped,
                )
            )

        def tell(rung: Rung) -> Callable[[], None]:
            return lambda: self._search.tell_rung(assignment.trial, rung)

        return [*(tell(rung) for rung in measured if rung.step > done), end]


def simulate(
    search: Search, workers: int = 1, seed: int = 0, until: Callable[[], bool] = lambda: False, **options: Any
) -> list[Assignment]:
    """Runs a search to its end with so many trials at a time, in an order fixed by `seed`. What was handed out."""
    worker, rng = Worker(search, **options), random.Random(seed)
    handed_out: list[Assignment] = []
    running: list[deque[Callable[[], None]]] = []
    for _ in range(100_000):
        if until():
            return handed_out
        while len(running) < workers and (assignment := search.ask()):
            handed_out.append(assignment)
            running.append(deque(worker.steps(assignment)))
        if not running:
            assert search.finished, "nothing runs, nothing is handed out, and the search has not ended"
            return handed_out
        trial = rng.choice(running)
        trial.popleft()()
        running = [trial for trial in running if trial]
    raise AssertionError("the search does not end")


def start(settings: Settings, space: FakeSpace | None = None, **options: Any) -> tuple[Search, list[Event]]:
    """A search and the list that its events go to, as the JSON of a journal has them."""
    events: list[Event] = []
    record = lambda event: events.append(json.loads(json.dumps(event, allow_nan=False)))  # noqa: E731
    return Search(settings, space or FakeSpace(), record, **options), events
