"""Candidates as genomes: composed of parts, and varied as the operators vary their sources."""

import random

import pytest

from nas.space import NotApplicable
from nas.types import Candidate, Operator
from search_spaces.linear_attention.grammar import parts_of, with_parts
from search_spaces.linear_attention.parts import SLOTS, Part, known_parts
from search_spaces.linear_attention.space import OPERATORS, SPACE, check_needs


def composable(seed: int) -> dict[str, str]:
    """A random genome that goes together."""
    rng = random.Random(seed)
    while True:
        genome = {slot: rng.choice(list(known_parts(slot))) for slot in SLOTS}
        try:
            return dict(SPACE.describe(SPACE.compose(genome).source))
        except NotApplicable:
            continue


@pytest.mark.parametrize("seed", range(12))
def test_a_candidate_is_what_its_genome_says(seed: int) -> None:
    genome = composable(seed)
    candidate = SPACE.compose(genome)
    assert SPACE.describe(candidate.source) == genome
    assert SPACE.compose(genome).id == candidate.id


@pytest.mark.parametrize("seed", range(12))
def test_variants_are_what_the_operators_make(seed: int) -> None:
    """The first has the parts of the child that `mutate` makes with the same draws; without one there is no child.

    And all are what the sources come to that the changes are put into: of these `mutate` is not asked.
    """
    rng = random.Random(seed)
    known = [one.source for one in SPACE.baselines().values() if "custom" not in SPACE.describe(one.source).values()]
    for operator in SPACE.operators:
        sources = [SPACE.compose(composable(rng.randrange(10**6))).source, rng.choice(known)]
        parents = [Candidate(source, "baseline") for source in rng.sample(sources, operator.parents)]
        genomes = [SPACE.describe(parent.source) for parent in parents]
        draws = rng.randrange(10**6)
        variants = SPACE.variants(operator, genomes, random.Random(draws))
        try:
            made = [SPACE.describe(SPACE.mutate(operator, parents, random.Random(draws)).source)]
        except NotApplicable:
            made = []
        assert list(variants[:1]) == made, operator.name
        parts = [parts_of(parent.source) for parent in parents]
        tried = OPERATORS[operator.name][1](parts, random.Random(draws))
        come = [put(parents[0].source, changes) for changes in tried]
        assert variants == [one for one in come if one and one not in genomes], operator.name


def put(source: str, changes: list[Part]) -> dict[str, str]:
    """The parts of this source with these changes; none if they do not go together."""
    try:
        parts = parts_of(with_parts(source, changes))
        check_needs(parts)
    except NotApplicable:
        return {}
    return {slot: part.name for slot, part in parts.items()}


def test_what_a_method_of_another_name_reads_is_left_in_place() -> None:
    """Parts do not say that it reads it, so the source is asked."""
    operators = {operator.name: operator for operator in SPACE.operators}
    helper = "\n    def report(self, x):\n        return self.write_strength(x)\n"
    source = SPACE.compose({"write_rule": "gated", "strength": "sigmoid"}).source + helper
    assert "custom" not in SPACE.describe(source).values()
    child = additive(operators["write_rule"], Candidate(source, "baseline"))
    assert SPACE.describe(child.source)["strength"] == "sigmoid"
    SPACE.mutate(operators["readout"], [child], random.Random(0))


def additive(operator: Operator, parent: Candidate) -> Candidate:
    children = (SPACE.mutate(operator, [parent], random.Random(draw)) for draw in range(200))
    return next(child for child in children if SPACE.describe(child.source)["write_rule"] == "additive")


def test_a_part_that_nothing_reads_is_left_out() -> None:
    genome = {"write_rule": "additive", "strength": "signed", "normalize": "l2"}
    assert SPACE.describe(SPACE.compose(genome).source)["strength"] == "off"


@pytest.mark.parametrize(
    ("genome", "why"),
    [
        ({"write_rule": "delta", "strength": "sigmoid"}, "needs unit keys"),
        ({"write_rule": "nonsense"}, "there is no part write_rule=nonsense"),
        ({"nonsense": "off"}, "there is no part nonsense=off"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_reason(genome: dict[str, str], why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        SPACE.compose(genome)


def test_a_context_is_the_part_in_the_operators_slot_and_the_family() -> None:
    operators = {operator.name: operator for operator in SPACE.operators}
    source = SPACE.baselines()["gated_deltanet"].source
    assert SPACE.context(operators["decay"], source) == ("per head", SPACE.family(source))
    assert SPACE.context(operators["crossover"], source) == (SPACE.family(source),)
    assert SPACE.context(operators["decay"], "not a mixer") == ("custom", "custom")


def test_there_are_no_variants_of_what_the_grammar_does_not_know() -> None:
    operators = {operator.name: operator for operator in SPACE.operators}
    genome, rng = SPACE.describe(SPACE.baselines()["gated_deltanet"].source), random.Random(0)
    assert SPACE.variants(operators["decay"], [genome], rng)
    for operator, genomes in (
        (Operator("random", "walks", parents=0), []),
        (operators["crossover"], [genome]),
        (operators["decay"], [{**genome, "readout": "custom"}]),
    ):
        with pytest.raises(NotApplicable):
            SPACE.variants(operator, genomes, rng)
