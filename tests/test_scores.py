"""One score of many measures: relative to the reference, the same whenever the reference is known, never not finite."""

import io
import math
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from fakes import fitness, make_settings, simulate, source_of, start
from rich.console import Console

from nas.configuration import composed, settings_of
from nas.fitness import Measures, judged, weighted
from nas.scores import Scores
from nas.settings import FitnessSettings, LlmSettings, Settings
from nas.summary import summarize
from nas.types import Budget, Candidate, Certificate, Cost, Crashed, Fitness, Trial

OWN = Measures(2.0, 2e4, 2e9, 2e6, 512.0, {"recall": 0.75})
REFERENCE = Measures(2.25, 1e4, 1e9, 1e6, 256.0, {"recall": 0.5})
COSTS = ("tokens_per_second", "peak_bytes", "state_bytes", "flops_per_token")
ALL = FitnessSettings("weighted", 0.01, 0.02, 0.03, 0.04, {"recall": 0.1})


def test_it_is_the_sum_of_its_terms() -> None:
    assert weighted(OWN, REFERENCE, ALL) == pytest.approx(0.25 + 0.01 - 0.02 - 0.03 - 0.04 + 0.1 * 0.25)
    assert weighted(OWN, REFERENCE, FitnessSettings("weighted")) == 0.25
    assert weighted(REFERENCE, REFERENCE, ALL) == 0


@pytest.mark.parametrize("name", [*COSTS, "bits_per_byte"])
def test_more_of_a_cost_scores_less_and_more_speed_more(name: str) -> None:
    more = replace(OWN, **{name: 2 * getattr(OWN, name)})
    assert (weighted(more, REFERENCE, ALL) > weighted(OWN, REFERENCE, ALL)) == (name == "tokens_per_second")


@pytest.mark.parametrize("others", [Measures(3.0, 1.0, 1.0, 1.0, 1.0), OWN])
def test_another_reference_shifts_all_scores_alike(others: Measures) -> None:
    """So ranks do not depend on who was trained first."""
    third = Measures(1.5, 5e3, 7e9, 3e5, 64.0, {"recall": 0.1})
    by = [weighted(OWN, reference, ALL) - weighted(third, reference, ALL) for reference in (REFERENCE, others)]
    assert by[0] == pytest.approx(by[1])


@pytest.mark.parametrize("name", ["tokens_per_second", "peak_bytes", "flops_per_token"])
@pytest.mark.parametrize("side", [OWN, REFERENCE])
def test_what_was_not_measured_counts_as_the_references(name: str, side: Measures) -> None:
    unknown = replace(side, **{name: 0.0})
    pair = (unknown, REFERENCE) if side is OWN else (OWN, unknown)
    alike = replace(OWN, **{name: getattr(REFERENCE, name)})
    assert weighted(*pair, ALL) == pytest.approx(weighted(alike, REFERENCE, ALL))
    assert weighted(replace(OWN, probes={}), REFERENCE, ALL) == pytest.approx(weighted(OWN, REFERENCE, ALL) - 0.025)
    assert math.isfinite(weighted(replace(OWN, state_bytes=0.0), REFERENCE, ALL))


@pytest.mark.parametrize("weight", [0.05, 0.2])
def test_an_opinion_is_worth_its_weight_of_the_baselines_spread_and_no_more(weight: float) -> None:
    best, worst, none = (judged(1.0, opinion, 0.5, weight) for opinion in (1.0, 0.0, None))
    assert best - worst == pytest.approx(weight * 0.5) and none == pytest.approx((best + worst) / 2)
    assert judged(1.0, 0.9, 0.5, 0.0) == 1.0, "off"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"judge": 0.21}, "opinion is no measurement"),
        ({"judge": -0.1}, r"fitness.judge=-0.1"),
        ({"flops_per_token": 0.1}, "fitness.flops_per_token needs fitness=weighted"),
        ({"kind": "weighted", "state_bytes": 1.5}, r"fitness.state_bytes=1.5 must be in \[0, 1\]"),
        ({"kind": "weighted", "probes": {"recall": -1}}, "fitness.probes.recall=-1"),
        ({"kind": "weighted", "peak_bytes": math.inf}, "fitness.peak_bytes=inf"),
    ],
)
def test_a_weight_out_of_range_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FitnessSettings(**changed)


def test_an_opinion_that_nobody_gives_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fitness.judge=0.1 needs llm.judge=true"):
        Settings(fitness=FitnessSettings(judge=0.1))


def test_it_is_composed_with_probes_of_any_name() -> None:
    settings = settings_of(composed(["fitness=weighted", "+fitness.probes.mqar=0.05", "fitness.state_bytes=0.02"]))
    assert settings.fitness.probes == {"mqar": 0.05} and settings.fitness.state_bytes == 0.02


# In a search

WEIGHTED = replace(make_settings(), fitness=FitnessSettings("weighted", flops_per_token=0.1, state_bytes=0.1))
REFERENCE_CANDIDATE, OTHER = (Candidate(source_of((n, 0, 0, 0)), "baseline", name=str(n)) for n in (1, 2))
CHILD = Candidate(source_of((3, 0, 0, 0)), "decay")


def trial(candidate: Candidate, purpose: str, bits: float, flops: float, state: int | None) -> Trial:
    certificate = Certificate({}, 1.0, 1, state, {}, candidate.id)
    outcome = replace(fitness(bits), flops_per_token=flops)
    return Trial(f"t{candidate.id}", candidate, purpose, Budget(40), outcome, Cost(), certificate=certificate)


TRIALS = (
    trial(REFERENCE_CANDIDATE, "baseline", 2.0, 1e6, 1024),
    trial(OTHER, "baseline", 1.9, 4e6, 1024),
    trial(CHILD, "search", 1.95, 1e6, 512),
)


def score(trial: Trial) -> float:
    assert isinstance(trial.outcome, Fitness)
    return trial.outcome.score


def test_whatever_the_order_the_scores_are_the_same_in_the_end() -> None:
    for order in permutations(TRIALS):
        scores = Scores(WEIGHTED, [REFERENCE_CANDIDATE, OTHER])
        for each in order:
            scores.take(each)
        assert [score(scores.scored(each)) for each in TRIALS] == pytest.approx([0.0, 0.1 - 0.2, 0.05 + 0.1])


def test_without_a_decoding_state_all_inputs_are_kept() -> None:
    scores = Scores(WEIGHTED, [REFERENCE_CANDIDATE])
    scores.take(TRIALS[0])
    stateless = trial(CHILD, "search", 2.0, 1e6, None)
    scores.take(stateless)
    assert score(scores.scored(stateless)) == pytest.approx(-0.1 * math.log2(4 * 256 * 64 / 1024))


def test_what_is_not_finite_is_never_a_score() -> None:
    scores = Scores(WEIGHTED, [])
    huge = replace(TRIALS[2], outcome=replace(fitness(1e308), flops_per_token=1e308))
    scores._score = lambda own, reference, settings: math.inf
    assert isinstance(scores.scored(huge).outcome, Crashed)


def opinion(work: str, mark: int) -> dict[str, Any]:
    return {"event": "opinion", "work": work, "novelty": mark, "simplicity": mark, "model": "m", "because": "b"}


@pytest.mark.parametrize("first", [True, False], ids=["before the ask", "after it"])
def test_an_opinion_moves_its_candidate_whenever_it_comes(first: bool) -> None:
    settings = replace(WEIGHTED, llm=LlmSettings(judge=True), fitness=replace(WEIGHTED.fitness, judge=0.2))
    scores = Scores(settings, [REFERENCE_CANDIDATE, OTHER])
    for each in TRIALS:
        scores.take(each)
    before = score(scores.scored(TRIALS[2]))
    ask = {"event": "ask", "work": "p1", "candidate": asdict(CHILD) | {"id": CHILD.id}}
    events = [opinion("p1", 10), ask] if first else [ask, opinion("p1", 10)]
    assert [scores.heed(event) for event in events] == [False, True]
    assert score(scores.scored(TRIALS[2])) - before == pytest.approx(0.2 * 0.1 / 2)
    assert scores.heed(opinion("p2", 1)) is False and scores.heed({"event": "ask", "work": None}) is False


def test_the_usual_score_is_minus_the_bits_and_costs_nothing_to_keep() -> None:
    scores = Scores(make_settings(), [REFERENCE_CANDIDATE])
    assert scores.fixed and not scores.take(TRIALS[0]) and scores.scored(TRIALS[0]) is TRIALS[0]


def test_what_is_proposed_waits_for_the_reference_so_that_scores_compare() -> None:
    settings = replace(make_settings(trials=12), fitness=FitnessSettings("weighted", flops_per_token=0.5))
    for workers in (2, 4):
        search, events = start(settings)
        simulate(search, workers)
        ended = [e["purpose"] for e in events if e["event"] == "trial"]
        first = next(e for e in events if e["event"] == "ask" and e["purpose"] == "search")
        told = [e for e in events[: events.index(first)] if e["event"] == "trial" and e["purpose"] == "baseline"]
        assert len(told) == 3 == ended.count("baseline")
        ranked = {t.id: score(t) for t in search.archive.ranked() if t.purpose == "search"}
        assert {e["id"]: e["outcome"]["score"] for e in events if e.get("id") in ranked} == ranked


def test_only_a_score_of_its_own_has_a_column() -> None:
    for fitness_settings in (FitnessSettings(), FitnessSettings("weighted", flops_per_token=0.5)):
        search, _ = start(replace(make_settings(trials=2), fitness=fitness_settings))
        simulate(search)
        console = Console(file=io.StringIO(), width=200)
        summarize(search).show(console, Path("results/x"), "trials")
        assert ("score" in console.file.getvalue().splitlines()[2]) == (fitness_settings.kind == "weighted")  # type: ignore[attr-defined]


def test_a_search_ranks_by_it_and_a_resumed_one_finds_the_same() -> None:
    settings = replace(make_settings(trials=12), fitness=FitnessSettings("weighted", flops_per_token=0.5))

    def outcome(assignment: Any) -> Fitness:
        number = int(assignment.candidate.id, 16)
        return replace(fitness(2.0 + number % 7 / 100), flops_per_token=float(1e6 * (1 + number % 5)))

    search, whole = start(settings)
    simulate(search, outcome=outcome)
    trials = [t for t in search.archive.ranked() if isinstance(t.outcome, Fitness) and t.outcome.step == 40]
    reference = next(t for t in trials if t.candidate.name == "strong").outcome
    assert isinstance(reference, Fitness)
    for each in trials:
        own = each.outcome
        assert isinstance(own, Fitness)
        octaves = math.log2(own.flops_per_token / reference.flops_per_token)
        assert own.score == pytest.approx(reference.bits_per_byte - own.bits_per_byte - 0.5 * octaves)
    told = {e["id"]: e["outcome"].get("score") for e in whole if e["event"] == "trial"}
    assert all(told[t.id] == score(t) for t in trials), "the reference is trained first"
    for cut in range(0, len(whole), 3):
        resumed, more = start(settings)
        resumed.replay(whole[:cut])
        simulate(resumed, outcome=outcome)
        assert [*whole[:cut], *more] == whole
