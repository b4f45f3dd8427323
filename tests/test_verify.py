"""Who takes part in a verification, what is measured, and what is concluded from it: without any training."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from fakes import FakeSpace, bits, fitness, make_settings, simulate, source_of, start
from test_statistics_of_verdicts import drawn

from nas.ablation import Kept, lineage, without
from nas.commands.null import COPIES, Plan, concluded
from nas.meta import make_policy
from nas.proposers import Request
from nas.proposers.random import RANDOM, RandomProposer
from nas.settings import Settings, VerifySettings
from nas.space import load_space
from nas.statistics import mean_over_seeds_and_text
from nas.tasks.corpus import Corpus
from nas.types import Budget, Candidate, Cost, Fitness, Held, Outcome, Rejected, Trial, trial_to_json
from nas.verify import (
    Comparison,
    Entrant,
    Scores,
    best_rate,
    compare,
    conditions,
    entrants,
    equal_flops,
    fresh_seeds,
    record_holders,
    scores,
    test_piece,
    trained,
    trials_of,
    tuning_piece,
    verdicts,
)

test_piece.__test__ = False  # type: ignore[attr-defined]  # it is none of the tests
CORPUS = Corpus("text", "ab" * 32, "/nowhere", dict.fromkeys(("train", "validation", "reserve", "test"), 9), 3.0, 2.0)
SETTINGS = Settings(verify=VerifySettings(contenders=2, baselines=1, seeds=3))


def trial(
    number: int, outcome: Outcome, purpose: str = "search", parents: tuple[str, ...] = (), seed: int = 0
) -> Trial:
    candidate = Candidate(
        source_of((number, 0, 0, 0)), "decay", parents, name="" if purpose == "search" else str(number)
    )
    return Trial(f"t{number:04d}", candidate, purpose, Budget(40, seed), outcome, Cost())


# Who


def test_the_best_that_were_trained_to_the_end_contend_with_the_best_baseline_and_the_reference() -> None:
    search, events = start(make_settings(trials=14))
    simulate(search)
    trials = trials_of(events)
    reference = FakeSpace().baselines()["strong"]
    found = entrants(trials, SETTINGS, reference)
    assert [entrant.role for entrant in found[:2]] == ["contender"] * 2
    assert all(isinstance(e.trial.outcome, Fitness) and e.trial.outcome.step == 40 for e in found if e.trial)
    best = search.best("search")
    assert best and found[0].candidate.id == best.candidate.id
    names = {entrant.candidate.name for entrant in found if entrant.role == "baseline"}
    assert "strong" in names and len(names) <= 2
    seeds = fresh_seeds(trials, SETTINGS)
    assert len(seeds) == 3 and not set(seeds) & {t.budget.seed for t in trials}


def test_a_reference_that_the_search_did_not_train_takes_part_all_the_same() -> None:
    reference = FakeSpace().baselines()["strong"]
    found = entrants([trial(1, fitness(2.0)), trial(2, fitness(2.5), "baseline")], SETTINGS, reference)
    assert [(e.role, e.candidate.id) for e in found][-1] == ("baseline", reference.id) and len(found) == 3


def test_what_is_held_counts_once_a_person_accepted_it() -> None:
    held = trial(1, Held("leap", "too good", fitness(1.0)))
    events: list[dict[str, Any]] = [{"event": "trial", **trial_to_json(held)}]
    assert trained(trials_of(events), "search") == []
    events.append({"event": "review", "trial": "t0001", "decision": "accept"})
    assert [t.id for t in trained(trials_of(events), "search")] == ["t0001"]


def test_record_holders_are_those_that_were_the_best_so_far() -> None:
    values = [2.0, 2.5, 1.5, 1.6, 1.2]
    trials = [trial(9, fitness(0.5), "baseline"), *(trial(number, fitness(b)) for number, b in enumerate(values))]
    trials.insert(2, trial(7, Rejected("cost", "quadratic")))
    trials.append(trial(8, fitness(0.1, step=10)))  # stopped early
    assert [(tried, t.id) for tried, t in record_holders(trials)] == [(1, "t0000"), (4, "t0002"), (6, "t0004")]


# What is measured


def test_conditions_and_pieces() -> None:
    settings = replace(SETTINGS, verify=replace(SETTINGS.verify, longer=2.5, widen=3))
    primary, wider, second = conditions(settings, CORPUS, replace(CORPUS, name="other"))
    assert (primary.name, primary.steps, wider.name, second.name) == ("longer", 640, "wider", "corpus")
    assert (wider.model.width, wider.model.heads) == (192, 6), "heads keep their width"
    entrant = Entrant(FakeSpace().baselines()["plain"], "baseline")
    tuning = tuning_piece(entrant, primary, settings)
    assert tuning.split == "validation" and tuning.seeds == (0,) and tuning.train.steps == 256
    assert [run["learning_rate"] for run in tuning.runs] == [0.004, 0.008, 0.016]
    test = test_piece(entrant, primary, 0.002, (1, 2), settings)
    assert test.split == "test" and [run["seed"] for run in test.runs] == [1, 2] and test.train.steps == 640
    assert test.key != test_piece(entrant, primary, 0.004, (1, 2), settings).key != tuning.key
    assert test.key == test_piece(entrant, primary, 0.002, (1, 2), settings).key
    json.dumps(asdict(test))


def test_equal_flops_scales_the_steps_and_is_left_out_where_it_would_change_nothing() -> None:
    primary, *_ = conditions(SETTINGS, CORPUS, None)
    scaled = equal_flops(primary, ours=2e6, theirs=1e6)
    assert scaled and scaled.steps == primary.steps / 2 and scaled.name == "equal_flops"
    assert equal_flops(primary, 1.01e6, 1e6) is None


def test_the_best_learning_rate_is_that_of_the_fewest_bits() -> None:
    piece = tuning_piece(Entrant(FakeSpace().baselines()["plain"], "baseline"), conditions(SETTINGS, CORPUS, None)[0],
                         SETTINGS)  # fmt: skip
    names = [run["name"] for run in piece.runs]
    found = {names[0]: {"bits": [2.0, 3.0]}, names[1]: {"bits": [2.0, 2.2]}, names[2]: {"failure": "not finite"}}
    assert best_rate(piece, {"runs": found}) == (0.008, pytest.approx(2.1))
    assert best_rate(piece, {"runs": {name: {"failure": "x"} for name in names}}) is None
    assert best_rate(piece, {"outcome": {"kind": "crashed", "cause": "memory", "reason": "much"}}) is None
    one = replace(piece, rates=(0.004,), seeds=(1, 2))
    runs: dict[str, Any] = {run["name"]: {"bits": [2.0]} for run in one.runs}
    measured = {"runs": runs, "params": 9, "flops_per_token": 1.0, "tokens_per_second": 1.0}
    assert scores(one, measured).by_seed == {1: 2.0, 2: 2.0}
    runs[one.runs[1]["name"]] = {"failure": "not finite"}
    assert scores(one, measured).failure == "seed 2: not finite" and scores(one, measured).bits == {}
    crashed = scores(one, {"outcome": {"kind": "crashed", "cause": "memory", "reason": "too\nmuch"}})
    assert crashed.failure == "memory: much"


# What is concluded


def of(bits: list[list[float]]) -> Scores:
    return Scores(dict(enumerate(bits)), 100, 1.0, 1.0)


def test_gains_are_paired_by_seed_and_window() -> None:
    theirs = [[2.0 + seed + window for window in range(4)] for seed in range(3)]
    ours = [[value - 0.1 - 0.01 * seed for value in row] for seed, row in enumerate(theirs)]
    found = compare("longer", of(ours), of(theirs), 0.05)
    assert found.gain and found.gain.mean == pytest.approx(0.11) and found.gain.low > 0.08
    assert found.by_seed == pytest.approx({0: 0.1, 1: 0.11, 2: 0.12})
    assert found.says(found.p, 0.05) == "better"
    worse = compare("longer", of(theirs), of(ours), 0.05)
    assert worse.says(worse.p, 0.05) == "worse"
    alike = compare("longer", of(theirs), of(theirs), 0.05)
    assert alike.says(alike.p, 0.05) == "indistinguishable" and alike.p == 1.0
    hardly = compare("longer", of([[v - 1e-6 for v in row] for row in theirs]), of(theirs), 0.05)
    assert hardly.says(hardly.p, 0.05) == "indistinguishable", "certain, and nothing"


def at(gain: float, p: float, condition: str = "longer") -> Comparison:
    return Comparison(condition, mean_over_seeds_and_text([[gain] * 2] * 3)[0], p)


@pytest.mark.parametrize(
    ("compared", "matched", "word"),
    [
        ([at(0.1, 0.01)], True, "better"),
        ([at(0.1, 0.06)], True, "indistinguishable"),
        ([at(-0.1, 0.01)], True, "worse"),
        ([at(0.1, 0.01)], False, "indistinguishable"),
        ([at(0.1, 0.01), at(-0.1, 0.04, "wider")], True, "indistinguishable"),
        ([at(0.1, 0.01), at(-0.1, 0.06, "wider")], True, "better"),
        ([at(-0.1, 0.01), at(0.1, 0.04, "wider")], True, "indistinguishable"),
        ([at(0.1, 0.01), Comparison("wider", failure="diverged")], True, "indistinguishable"),
        ([Comparison("longer", failure="diverged")], True, "indistinguishable"),
    ],
)
def test_a_verdict_needs_the_primary_condition_and_nothing_against_it(
    compared: list[Comparison], matched: bool, word: str
) -> None:
    (verdict,) = verdicts([compared], [matched], SETTINGS)
    assert verdict.word == word and verdict.why


def test_verdicts_are_corrected_for_their_number() -> None:
    found = verdicts([[at(0.1, 0.03)], [at(0.1, 0.001)]], [True, True], SETTINGS)
    assert [verdict.word for verdict in found] == ["better", "better"] and found[1].p == pytest.approx(0.002)
    found = verdicts([[at(0.1, 0.03)], [at(0.1, 0.04)]], [True, True], SETTINGS)
    assert [verdict.word for verdict in found] == ["indistinguishable"] * 2
    shared = replace(SETTINGS, verify=replace(SETTINGS.verify, correction="benjamini_hochberg"))
    assert [v.word for v in verdicts([[at(0.1, 0.03)], [at(0.1, 0.04)]], [True, True], shared)] == ["better"] * 2


@pytest.mark.parametrize(("contenders", "seeds"), [(1, 3), (3, 5)])
def test_of_a_thousand_searches_that_found_nothing_one_in_forty_is_told_that_it_did(
    contenders: int, seeds: int
) -> None:
    """Family-wise: any contender called better; two-sided at 5 %, so better by chance in 2.5 % at the most."""
    rng, repetitions, wrong = np.random.default_rng(contenders), 1000, 0
    for _ in range(repetitions):
        compared = [[drawn_comparison(rng, seeds, 0.0)] for _ in range(contenders)]
        words = [verdict.word for verdict in verdicts(compared, [True] * contenders, SETTINGS)]
        wrong += "better" in words or "worse" in words
    assert wrong / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_a_planted_improvement_is_found() -> None:
    """Three times the noise of one seed, among two contenders that are none."""
    rng, found, wrong = np.random.default_rng(0), 0, 0
    for _ in range(200):
        compared = [[drawn_comparison(rng, 5, gain)] for gain in (0.078, 0.0, 0.0)]
        words = [verdict.word for verdict in verdicts(compared, [True] * 3, SETTINGS)]
        found += words[0] == "better"
        wrong += "better" in words[1:]
    assert found >= 0.9 * 200 and wrong <= 0.08 * 200


def drawn_comparison(rng: np.random.Generator, seeds: int, gain: float) -> Comparison:
    return Comparison("longer", *mean_over_seeds_and_text(drawn(rng, seeds, mean=gain)))


# The null test


def test_a_null_test_counts_what_verification_says() -> None:
    """Of copies that are none by construction, and of one that is: the whole conclusion, on drawn scores."""
    rng, settings = np.random.default_rng(2), replace(SETTINGS, verify=replace(SETTINGS.verify, seeds=5))
    plan = Plan(1, 5)

    def trainings(seeds: Sequence[int], mean: float) -> Scores:
        return replace(of([]), bits={s: list(rng.normal(mean + rng.normal(0, 0.01), 0.03, 16)) for s in seeds})

    theirs = trainings([*plan.same, *chain_of(plan.baselines)], 2.0)
    same = {seed: theirs.bits[seed] for seed in plan.same}
    copies = []
    for its in plan.copies:
        copy = trainings([*plan.same, *its], 2.0)
        copies.append(replace(copy, bits={**copy.bits, **same}))
    better = trainings(plan.same, 1.9)
    report = concluded(plan, theirs, better, copies, settings)
    json.dumps(report, allow_nan=False)
    paired, unpaired = report["forms"]
    assert paired["better"] == paired["worse"] == 0 and paired["p"] == [1.0] * COPIES
    assert unpaired["better"] <= 1 and unpaired["better_as_one_family"] == 0
    assert report["found"]["verdict"] == "better" and report["passed"]
    assert not concluded(plan, theirs, trainings(plan.same, 2.0), copies, settings)["passed"], "nothing was planted"
    assert not concluded(plan, theirs, better, [replace(c, bits={s: [b - 0.1 for b in w] for s, w in c.bits.items()})
                                                for c in copies], settings)["passed"]  # fmt: skip


def chain_of(blocks: list[tuple[int, ...]]) -> list[int]:
    return [seed for block in blocks for seed in block]


# Ablation


def test_a_lineage_has_every_change_down_to_the_baselines_through_both_parents() -> None:
    base, other = trial(0, fitness(2.0), "baseline"), trial(1, fitness(2.0), "baseline")
    first = trial(2, fitness(1.9), parents=(base.candidate.id,))
    second = trial(3, fitness(1.9), parents=(other.candidate.id,))
    crossed = trial(4, fitness(1.8), parents=(first.candidate.id, second.candidate.id))
    stranger = trial(5, fitness(1.8), parents=(base.candidate.id,))
    found = lineage(crossed.candidate, [base, other, first, second, crossed, stranger])
    assert [(change.trial, change.parent.id) for change in found] == [
        ("t0004", first.candidate.id),
        ("t0003", other.candidate.id),
        ("t0002", base.candidate.id),
    ]


def chain(*genes: tuple[int, ...]) -> list[Trial]:
    """Each a child of the one before; the first is a baseline."""
    trials: list[Trial] = []
    for number, these in enumerate(genes):
        parents = (trials[-1].candidate.id,) if trials else ()
        candidate = Candidate(source_of(these), "decay", parents)
        purpose = "search" if trials else "baseline"
        trials.append(Trial(f"t{number:04d}", candidate, purpose, Budget(40), fitness(2.0), Cost()))
    return trials


def test_a_change_is_taken_out_and_the_later_ones_stay() -> None:
    trials = chain((0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 0, 0), (1, 2, 0, 3))
    winner = trials[-1].candidate
    sources = [
        found.source for c in lineage(winner, trials) if isinstance(found := without(c, winner, FakeSpace()), Candidate)
    ]
    assert sources == [source_of(genes) for genes in ((1, 2, 0, 0), (1, 0, 0, 3), (0, 2, 0, 3))]


def test_a_change_that_cannot_be_taken_out_says_why() -> None:
    trials = chain((0, 0, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0))
    *_, first = lineage(trials[-1].candidate, trials)
    found = without(first, trials[-1].candidate, FakeSpace())
    assert isinstance(found, Kept) and found.reason == "later changes stand on it, first in 'decay = 1'"
    trials = chain((0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 0, 0), (0, 2, 0, 0))
    first = next(c for c in lineage(trials[-1].candidate, trials) if c.trial == "t0001")
    found = without(first, trials[-1].candidate, FakeSpace())
    assert isinstance(found, Kept) and "nothing of it is left" in found.reason


def test_where_a_merge_conflicts_the_winner_is_put_together_of_the_other_parts() -> None:
    """The readout that a `simplify` took out stands beside what later changes wrote."""
    space = load_space("search_spaces.linear_attention.space")
    operators, line = {one.name: one for one in space.operators}, [space.baselines()["mamba2"]]
    steps = (("simplify", "readout", "plain"), ("decay", "decay", "forget"), ("decay", "decay", "per channel step"))
    for name, slot, part in steps:
        drawn = (space.mutate(operators[name], [line[-1]], random.Random(seed)) for seed in range(100))
        line.append(next(child for child in drawn if space.describe(child.source)[slot] == part))
    trials = [
        Trial(f"t{number:04d}", one, "search" if number else "baseline", Budget(40), fitness(2.0), Cost())
        for number, one in enumerate(line)
    ]
    found = {change.trial: without(change, line[-1], space) for change in lineage(line[-1], trials)}
    now, taken = space.describe(line[-1].source), found["t0001"]
    assert isinstance(taken, Candidate) and space.describe(taken.source) == {**now, "readout": "silu gate"}
    assert isinstance(found["t0002"], Kept), "another decay stands in its place"


@pytest.mark.parametrize(("low", "credit"), [(0.01, True), (-0.01, False)])
def test_what_a_change_is_worth_becomes_credit_when_the_search_goes_on(low: float, credit: bool) -> None:
    settings = make_settings(trials=6)
    search, events = start(settings)
    simulate(search)
    effect = {"mean": 0.5, "low": low, "high": 1.0, "count": 3}
    told = {
        "event": "ablation",
        "trial": "t0004",
        "operator": "decay",
        "candidate": "x",
        "winner": "y",
        "effect": effect,
    }
    plain, credited = start(settings)[0], start(settings)[0]
    plain.replay(events)
    credited.replay([*events, told, {**told, "operator": "of another space"}])
    before, after = plain._credit.policy.credit()["decay"], credited._credit.policy.credit()["decay"]
    assert after["pulls"] > before["pulls"]
    policy = make_policy(settings.meta, ["decay"])
    policy.update("decay", 0.5 if credit else 0.0)
    assert (after["reward"] > before["reward"]) == credit or before["reward"] == policy.credit()["decay"]["reward"]


# The control


def test_random_walks_ignore_what_was_found() -> None:
    space, operator = FakeSpace(), RANDOM
    proposer = RandomProposer(space)

    def proposed(seed: int, parents: list[Candidate]) -> Candidate:
        return proposer.propose(Request(operator, parents, 0, random.Random(seed)))

    starts = {candidate.id for candidate in space.baselines().values()}
    children = [proposed(seed, []) for seed in range(50)]
    assert len({child.id for child in children}) > 20
    assert all(child.operator == "random" and set(child.parents) <= starts for child in children)
    elite = Candidate(source_of((4, 4, 4, 4)), "decay")
    assert [proposed(seed, [elite]) for seed in range(50)] == children


def test_a_random_search_runs_to_its_end() -> None:
    settings = replace(make_settings(trials=12), proposer=replace(Settings().proposer, kind="random"))
    search, events = start(settings)
    simulate(search)
    assert search.end_reason == "trials"
    asked = [e for e in events if e["event"] == "ask" and e["purpose"] == "search" and not e["duplicate"]]
    assert len(asked) == 12 and {e["candidate"]["operator"] for e in asked} == {"random"}
    assert bits(1, 2) != bits(1, 3)
