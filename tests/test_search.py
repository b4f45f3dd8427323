"""Ask and tell over simulated trials: what is tried, in which order, and that an interruption changes none of it."""

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import TRUSTING, Barren, FakeSpace, Worker, fitness, make_settings, outcome_of, simulate, source_of, start

from nas.errors import UserError
from nas.journal import Event
from nas.meta import POLICIES
from nas.search import Assignment, Search, rung_steps
from nas.settings import (
    BudgetSettings,
    MetaSettings,
    ProposerSettings,
    SchedulerSettings,
    SearchSettings,
    SearchSpaceSettings,
    Settings,
    TrainSettings,
    TripwireSettings,
)
from nas.space import NotApplicable
from nas.types import (
    Budget,
    Candidate,
    Certificate,
    Cost,
    Crashed,
    Fitness,
    Held,
    Outcome,
    Rejected,
    Rung,
    Trial,
    outcome_kind,
)

INFRASTRUCTURE = Crashed("infrastructure", "its worker was lost")
FAILURES = {
    "rejected": Rejected("causality", "it leaks"),
    "crashed": Crashed("raised", "ValueError"),
    "infrastructure": INFRASTRUCTURE,
}


def asks(events: list[Event], purpose: str = "") -> list[Event]:
    return [e for e in events if e["event"] == "ask" and purpose in ("", e["purpose"])]


def ends(events: list[Event], purpose: str = "") -> list[Event]:
    return [e for e in events if e["event"] == "trial" and purpose in ("", e["purpose"])]


def proposed(events: list[Event]) -> list[str]:
    return [e["candidate"]["id"] for e in asks(events, "search")]


def fails(outcome: Outcome, purpose: str) -> Callable[[Assignment], Outcome]:
    """Every trial of this purpose ends in `outcome`, the others as ever."""
    return lambda assignment: outcome if assignment.purpose == purpose else outcome_of(assignment)


def untrained(assignment: Assignment, outcome: Outcome) -> Trial:
    return Trial(assignment.trial, assignment.candidate, assignment.purpose, assignment.budget, outcome, Cost())


# What is tried, and in which order


@pytest.mark.parametrize("meta", POLICIES)
def test_the_seed_decides_everything(meta: str) -> None:
    settings = make_settings(meta, trials=20)
    journals = []
    for seed in (3, 3, 4):
        search, events = start(replace(settings, seed=seed))
        simulate(search)
        assert search.end_reason == "trials" and search.finished
        journals.append(events)
    first, again, other = journals
    assert first == again
    assert proposed(first) != proposed(other)


def test_the_training_seed_does_not_decide_what_is_proposed_first() -> None:
    settings = make_settings(trials=1)
    sources = []
    for seed in (0, 5):
        search, events = start(replace(settings, train=replace(settings.train, seed=seed)))
        simulate(search, outcome=lambda _: fitness(2.0))
        sources.append([e["candidate"]["source"] for e in asks(events, "search")])
        assert {e["budget"]["seed"] for e in asks(events, "baseline") + asks(events, "search")} == {seed}
    assert sources[0] == sources[1]


@pytest.mark.parametrize("workers", [1, 4])
def test_baselines_come_first_then_noise_then_proposals_then_confirmations(workers: int) -> None:
    search, events = start(make_settings(trials=12, noise_seeds=2, confirm_seeds=3))
    simulate(search, workers)
    purposes = [e["purpose"] for e in asks(events)]
    assert purposes[:5] == ["baseline"] * 3 + ["confirm"] * 2
    assert asks(events)[0]["candidate"]["name"] == "strong", "the reference comes first"
    assert {e["candidate"]["name"] for e in asks(events)[3:5]} == {"strong"}
    last_proposal = max(index for index, purpose in enumerate(purposes) if purpose == "search")
    assert set(purposes[5:last_proposal]) == {"search"} and set(purposes[last_proposal + 1 :]) == {"confirm"}


@pytest.mark.parametrize("workers", [1, 4])
def test_confirmations_are_of_the_best_two_on_fresh_seeds_after_everything_else(workers: int) -> None:
    search, events = start(make_settings(trials=12, noise_seeds=0, confirm_seeds=3))
    simulate(search, workers)
    candidate, baseline = search.best("search"), search.best("baseline")
    assert candidate and baseline
    confirmed = Counter((e["candidate"]["id"], e["budget"]["seed"]) for e in asks(events, "confirm"))
    assert confirmed == Counter((t.candidate.id, seed) for t in (candidate, baseline) for seed in (1, 2, 3))
    first = next(index for index, e in enumerate(events) if e["event"] == "ask" and e["purpose"] == "confirm")
    assert all(e["purpose"] == "confirm" for e in events[first:] if e["event"] in ("ask", "trial"))
    for purpose, trial in (("search", candidate), ("baseline", baseline)):
        scored = [e for e in ends(events, purpose) if e["outcome"]["kind"] == "fitness"]
        assert trial.id == min(scored, key=lambda e: (-e["outcome"]["step"], -e["outcome"]["score"]))["id"]


def test_noise_seeds_of_the_best_baseline_are_not_trained_again_to_confirm_it() -> None:
    search, events = start(make_settings(trials=0, noise_seeds=1, confirm_seeds=3))
    simulate(search, outcome=lambda a: fitness(1.0 if a.candidate.name == "strong" else 2.0))
    assert [(e["candidate"]["name"], e["budget"]["seed"]) for e in asks(events, "confirm")] == [
        ("strong", 1),
        ("strong", 2),
        ("strong", 3),
    ]


@pytest.mark.parametrize("trials", [0, 1, 5, 30])
@pytest.mark.parametrize("workers", [1, 3])
def test_trials_are_counted_without_copies(trials: int, workers: int) -> None:
    search, events = start(make_settings(trials=trials))
    handed_out = simulate(search, workers)
    assert search.end_reason == "trials"
    assert sum(not e["duplicate"] for e in asks(events, "search")) == trials
    assert sum(a.purpose == "search" for a in handed_out) == trials
    tried = [a.candidate.id for a in handed_out if a.purpose != "confirm"]
    assert len(set(tried)) == len(tried)


def test_copies_are_rejected_as_such_and_not_handed_out() -> None:
    search, events = start(make_settings(trials=40, draws=1), FakeSpace(values=3))
    handed_out = {a.trial for a in simulate(search)}
    copies = [e for e in asks(events) if e["duplicate"]]
    assert copies, "the space is so small that some proposals are copies"
    tried: dict[str, str] = {}
    for event in asks(events, "baseline") + asks(events, "search"):
        first = tried.setdefault(event["candidate"]["id"], event["trial"])
        assert event["duplicate"] == (first != event["trial"]) == (event["trial"] not in handed_out)
        if event["duplicate"]:
            outcome = search.trials[event["trial"]].outcome
            assert isinstance(outcome, Rejected) and outcome.check == "novelty" and first in outcome.reason


@pytest.mark.parametrize("space", [FakeSpace(), FakeSpace(values=3)], ids=["large", "small"])
@pytest.mark.parametrize("meta", POLICIES)
def test_every_choice_is_logged_with_its_probability(meta: str, space: FakeSpace) -> None:
    search, events = start(make_settings(meta, trials=30), space)
    simulate(search, 3)
    assert len({e["candidate"]["operator"] for e in asks(events, "search")}) > 2
    for event in asks(events):
        if event["purpose"] == "search":
            assert sum(event["weights"].values()) == pytest.approx(1)
            assert set(event["weights"]) == {operator.name for operator in space.operators}
            assert 0 < event["probability"] == event["weights"][event["candidate"]["operator"]] <= 1
        else:
            assert event["probability"] is None and event["weights"] == {}


def test_the_logged_probability_is_that_among_the_possible_operators() -> None:
    """With one parent no crossover is possible, and its share goes to the others."""
    settings = replace(make_settings("uniform", trials=1), search_space=SearchSpaceSettings(baselines=("strong",)))
    search, events = start(settings)
    simulate(search)
    (ask,) = asks(events, "search")[:1]
    assert ask["weights"]["crossover"] == 0 and ask["probability"] == pytest.approx(1 / 5)


def test_outside_references_are_trained_but_nobodys_parents() -> None:
    settings = replace(
        make_settings(trials=20), search_space=SearchSpaceSettings(baselines=("attention", "strong", "plain"))
    )
    search, events = start(settings)
    best_of_all = lambda a: fitness(0.5) if a.candidate.name == "attention" else outcome_of(a)  # noqa: E731
    simulate(search, outcome=best_of_all)
    outside = FakeSpace().outside_references()["attention"].id
    assert outside in {t.candidate.id for t in search.archive.ranked()}
    assert all(outside not in e["candidate"]["parents"] for e in asks(events))
    assert asks(events)[0]["candidate"]["name"] == "strong", "the reference comes first"


class Silent(FakeSpace):
    """A space whose candidates do not say what would come of them."""

    def variants(self, operator, genomes, rng):
        raise NotApplicable("a part of its own")


@pytest.mark.parametrize(("space", "most"), [(FakeSpace(values=40), 1.5), (Silent(values=40), 9.0)])
def test_of_several_children_the_best_looking_alone_is_made(space: FakeSpace, most: float) -> None:
    """Where the parents say what would come of them; else all are made first."""
    events, made = [], Counter()
    search = Search(make_settings("uniform", trials=30), space, events.append)
    propose = search._proposer.propose

    def counted(request):
        made[request.number] += 1
        return propose(request)

    search._proposer.propose = counted
    simulate(search)
    assert len(made) >= 30 and most / 2 < made.total() / len(made) <= most


def test_an_unknown_baseline_is_one_sentence() -> None:
    settings = replace(make_settings(), search_space=SearchSpaceSettings(baselines=("strong", "gla")))
    with pytest.raises(UserError, match=r"^search_space.baselines: no gla; there are plain, strong, third, attention$"):
        start(settings)[0].ask()


# What is learned


def test_an_infrastructure_failure_earns_nothing_either_way() -> None:
    settings = make_settings(trials=60)
    search, events = start(replace(settings, meta=replace(settings.meta, discount=1.0)))
    simulate(search, 3)
    counted, kinds = 0, Counter[str]()
    for event in ends(events):
        cause = event["outcome"].get("cause", event["outcome"]["kind"])
        if event["purpose"] == "search":
            counted += cause != "infrastructure"
            kinds[cause] += 1
        assert sum(credit["pulls"] for credit in event["credit"].values()) == counted
    assert kinds.keys() >= {"fitness", "rejected", "diverged", "infrastructure"}


@pytest.mark.parametrize("outcome", FAILURES.values(), ids=FAILURES)
def test_failures_earn_nothing(outcome: Outcome) -> None:
    search, events = start(make_settings(trials=20))
    simulate(search, outcome=fails(outcome, "search"))
    assert all(credit["reward"] == 0 for credit in ends(events)[-1]["credit"].values())
    assert all(event["gain"] is None for event in ends(events, "search"))


def test_every_proposal_counts_against_its_parents() -> None:
    """Copies and failures too: a parent whose children come to nothing makes way for others."""
    search, events = start(make_settings(trials=20), FakeSpace(values=3))
    simulate(search)
    assert search.population._children == Counter(p for e in asks(events, "search") for p in e["candidate"]["parents"])


def test_a_gain_is_credited_to_its_operator() -> None:
    search, events = start(make_settings(trials=1, noise_seeds=0))
    simulate(search, stops=False, outcome=lambda a: fitness(1.5 if a.purpose == "search" else 2.0))
    (end,) = [e for e in ends(events, "search") if e["outcome"]["kind"] == "fitness"]
    assert end["gain"] == 0.5 and end["credit"][end["candidate"]["operator"]] == {"reward": 1.0, "pulls": 1.0}


def test_known_functions_are_those_with_a_certificate_and_the_reference_is_a_baseline() -> None:
    search, _ = start(make_settings())
    strong, plain = (FakeSpace().baselines()[name] for name in ("strong", "plain"))
    impostor = Candidate(source_of((3, 3, 3, 3)), "decay", name="strong")
    reference_flops = []
    for name, candidate, purpose, flops in [
        ("t0000", impostor, "search", 7.0),
        ("t0001", plain, "baseline", None),
        ("t0002", strong, "baseline", 11.0),
    ]:
        certificate = Certificate({}, flops, 1, None, {}, f"print of {name}") if flops else None
        assignment = Assignment(name, candidate, purpose, Budget(40))
        search.tell(replace(untrained(assignment, fitness(2.0)), certificate=certificate))
        reference_flops.append(search.reference_flops_per_token())
    assert reference_flops == [None, None, 11.0]
    assert search.known_functions() == {"print of t0000": impostor.id, "print of t0002": strong.id}


# What is held

HELD = Held("rescore", "0.5 bits per byte apart", fitness(2.0))
WARY = TripwireSettings(leap=0.0, least_leap=0.25, collapse=1.0, collapse_window=100_000)


def told(search: Search, *trials: tuple[str, str, int, Outcome]) -> list[Trial]:
    """Tells of trials, one for each (genes, purpose, step it was stopped at or 0, outcome); returns what was kept."""
    for genes, purpose, stop, outcome in trials:
        candidate = Candidate(source_of([int(gene) for gene in genes]), "decay")
        trial = Trial(f"t{len(search.trials):04d}", candidate, purpose, Budget(40), outcome, Cost(1.0, 10.0, 12.0))
        search.tell(replace(trial, stopped=bool(stop)))
    return list(search.trials.values())


def reviewed(trial: str, decision: str) -> Event:
    return {"event": "review", "trial": trial, "decision": decision, "by": "Ada", "why": "looked at it", "time": 1.0}


@pytest.mark.parametrize(("bits", "kind"), [(1.75, "fitness"), (1.749, "held"), (0.01, "held")])
@pytest.mark.parametrize("step", [40, 10])
def test_a_candidate_far_better_than_the_best_baseline_is_held(bits: float, kind: str, step: int) -> None:
    search, events = start(make_settings(tripwire=WARY))
    *_, last = told(
        search,
        ("1100", "baseline", 0, fitness(2.0)),
        ("0000", "baseline", 0, fitness(2.0)),
        ("0101", "baseline", 0, Crashed("raised", "Error")),
        ("2222", "search", step < 40, fitness(bits, step)),
    )
    assert outcome_kind(last.outcome) == kind == ends(events)[-1]["outcome"]["kind"]
    if isinstance(last.outcome, Held):
        assert last.outcome.tripwire == "leap" and last.outcome.fitness == fitness(bits, step)
        assert ends(events)[-1]["outcome"]["fitness"]["bits_per_byte"] == bits


def test_baselines_and_confirmations_may_leap() -> None:
    search, _ = start(make_settings(tripwire=WARY))
    trials = told(
        search,
        ("1100", "baseline", 0, fitness(2.0)),
        ("0000", "baseline", 0, fitness(0.5)),
        ("1100", "confirm", 0, fitness(0.1)),
    )
    assert all(isinstance(trial.outcome, Fitness) for trial in trials)


def test_without_a_trained_baseline_nothing_leaps() -> None:
    search, _ = start(make_settings(tripwire=WARY))
    trials = told(
        search,
        ("1100", "baseline", 0, Crashed("raised", "Error")),
        ("0000", "baseline", 1, fitness(2.0, step=10)),  # not with the full budget
        ("2222", "search", 0, fitness(0.1)),
    )
    assert isinstance(trials[-1].outcome, Fitness)


@pytest.mark.parametrize("purpose", ["baseline", "search", "confirm"])
@pytest.mark.parametrize("step", [40, 10])
@pytest.mark.parametrize(("bits", "held"), [(0.75, False), (0.749, True)])
def test_a_loss_below_the_entropy_is_held_whatever_it_is_for(purpose: str, step: int, bits: float, held: bool) -> None:
    settings = make_settings(tripwire=replace(TRUSTING, entropy=0.25))
    search, _ = start(settings, compressed_bits_per_byte=3.0)
    (trial,) = told(search, ("1100", purpose, step < 40, fitness(bits, step)))
    assert isinstance(trial.outcome, Held) == held
    assert not held or trial.outcome.tripwire == "entropy"  # type: ignore[union-attr]
    search, _ = start(settings)
    (trial,) = told(search, ("1100", purpose, step < 40, fitness(bits, step)))
    assert isinstance(trial.outcome, Fitness), "what the text compresses to is not known"


def test_what_is_held_is_no_evidence_and_nobodys_parent_and_has_spent_its_budget() -> None:
    settings = replace(make_settings(trials=20), budget=BudgetSettings(device_hours=150 / 3600))
    search, events = start(replace(settings, meta=replace(settings.meta, discount=1.0)))
    simulate(search, outcome=lambda a: HELD if a.purpose == "search" else fitness(2.5))
    held = [e for e in ends(events, "search") if e["outcome"]["kind"] == "held"]
    assert len(held) == 11 and search.device_seconds == 150, "with the baselines and the noise seed it is fifteen"
    assert len(search.waiting()) == 11 and search.best("search") is None
    assert {parent for e in asks(events, "search") for parent in e["candidate"]["parents"]} <= {
        candidate.id for candidate in FakeSpace().baselines().values()
    }
    for event in held:
        assert event["gain"] is None
    copies = [e for e in ends(events, "search") if e["outcome"]["kind"] == "rejected"]
    assert sum(credit["pulls"] for credit in ends(events)[-1]["credit"].values()) == len(copies)


def test_a_held_baseline_is_as_good_as_none() -> None:
    search, events = start(make_settings(trials=3, noise_seeds=1))
    simulate(search, outcome=lambda a: HELD if a.candidate.name == "strong" else outcome_of(a))
    assert [e["candidate"]["name"] for e in asks(events)][:4] == ["strong", "plain", "third", "plain"]
    assert search.end_reason == "trials" and (best := search.best("baseline")) and best.candidate.name != "strong"


def test_a_held_confirmation_is_no_seed() -> None:
    search, _ = start(make_settings(trials=3, confirm_seeds=2))
    simulate(search, outcome=lambda a: HELD if a.purpose == "confirm" and a.budget.seed == 2 else outcome_of(a))
    assert search.end_reason == "trials" and len(search.waiting()) == 2
    best = search.best("baseline")
    assert best and 2 not in search.bits_per_byte_by_seed(best.candidate.id)


# A person's word on what is held


def the_held_search() -> tuple[Settings, list[Event], str]:
    """A whole search in which the first candidate leapt, its events, and that trial."""
    settings = make_settings(trials=6, tripwire=WARY)
    search, events = start(settings)

    def outcome(assignment: Assignment) -> Outcome:
        return fitness(1.0 if assignment.trial == first else 2.0 + 0.01 * (int(assignment.candidate.id, 16) % 7))

    first = "t0004"  # after three baselines and the noise seed
    simulate(search, stops=False, outcome=outcome)
    (held,) = search.waiting()
    assert held.id == first
    return settings, events, first


def test_what_is_accepted_counts_as_if_it_had_been_told_as_a_score() -> None:
    settings, events, first = the_held_search()
    resumed, more = start(settings)
    resumed.replay([*events, reviewed(first, "accept")])
    best = resumed.best("search")
    assert best and best.id == first and best.outcome == fitness(1.0)
    assert resumed.waiting() == [] and resumed.archive.ranked()[0].id == first
    before, _ = start(settings)
    before.replay(events)
    operator = best.candidate.operator
    assert resumed._credit.policy.credit()[operator]["pulls"] > before._credit.policy.credit()[operator]["pulls"]
    assert resumed.device_seconds == before.device_seconds, "it spent its time once"
    simulate(resumed, outcome=lambda _: fitness(1.0))
    confirmed = {e["candidate"]["id"] for e in asks(more, "confirm")}
    assert best.candidate.id in confirmed, "it is the best now, so it is confirmed"
    assert all(e["outcome"]["kind"] == "fitness" for e in ends(more))


def test_what_is_refused_stays_held_and_waits_no_more() -> None:
    settings, events, first = the_held_search()
    resumed, more = start(settings)
    resumed.replay([*events, reviewed(first, "refuse")])
    assert resumed.waiting() == [] and isinstance(resumed.trials[first].outcome, Held)
    assert (best := resumed.best("search")) and best.id != first
    simulate(resumed)
    assert more == [] and resumed.end_reason == "trials"


def test_the_first_word_on_a_trial_stands() -> None:
    settings, events, first = the_held_search()
    for decisions, kind in ((("refuse", "accept"), Held), (("accept", "refuse", "accept"), Fitness)):
        resumed, _ = start(settings)
        resumed.replay([*events, *(reviewed(first, decision) for decision in decisions)])
        assert isinstance(resumed.trials[first].outcome, kind)


@pytest.mark.parametrize("trial", ["t0000", "t9999", ""])
def test_a_word_on_what_is_not_held_changes_nothing(trial: str) -> None:
    settings, events, first = the_held_search()
    resumed, _ = start(settings)
    resumed.replay([*events, reviewed(trial, "accept")])
    assert [held.id for held in resumed.waiting()] == [first]


def test_after_one_was_accepted_its_like_are_not_held() -> None:
    settings, events, first = the_held_search()
    resumed, _ = start(settings)
    resumed.replay([*events, reviewed(first, "accept")])
    *_, alike, further = told(
        resumed, ("7777", "search", 0, fitness(0.75)), ("8888", "search", 0, fitness(0.74 - 0.25))
    )
    assert isinstance(alike.outcome, Fitness) and isinstance(further.outcome, Held)


# A search that repeats itself


def notices(events: list[Event]) -> list[Event]:
    return [e for e in events if e["event"] == "notice"]


def collapsing(share: float = 0.75) -> Settings:
    return make_settings(tripwire=replace(TRUSTING, collapse=share, collapse_window=8))


def test_a_collapse_is_noticed_once_and_again_after_it_had_cleared() -> None:
    search, events = start(collapsing())
    families = [*"11111111", *"1111", *"234", *"1", *"22222222", *"22"]
    noticed = []
    for number, family in enumerate(families):
        told(search, (f"{family}{number // 100}{number // 10 % 10}{number % 10}", "search", 0, fitness(2.0)))
        noticed.append(len(notices(events)))
    assert noticed[6:8] == [0, 1], "with the eighth the window is full"
    assert noticed[:-10] == [0] * 7 + [1] * 9, "of the last eight five are 1: it has cleared"
    assert noticed[-1] == 2 and [e["tripwire"] for e in notices(events)] == ["collapse"] * 2
    assert "the family 1" in notices(events)[0]["reason"] and "the family 2" in notices(events)[1]["reason"]


@pytest.mark.parametrize(("others", "count"), [("23", 1), ("234", 0)])
def test_a_collapse_is_a_share_of_the_window_and_no_less(others: str, count: int) -> None:
    """Six of eight are a share of 0.75, five are not."""
    search, events = start(collapsing())
    for number, family in enumerate(others.ljust(8, "1")):
        told(search, (f"{family}00{number}", "search", 0, fitness(2.0)))
    assert len(notices(events)) == count


def test_what_was_not_trained_or_not_proposed_is_of_no_family() -> None:
    search, events = start(collapsing())
    for number in range(10):
        told(search, (f"100{number}", "search", 0, FAILURES["crashed"]), (f"101{number}", "baseline", 0, fitness(2.0)))
        told(search, (f"102{number}", "search", 0, HELD), (f"103{number}", "confirm", 0, fitness(2.0)))
    assert notices(events) == []


def test_one_operator_alone_is_a_collapse_where_there_are_others(folder: Path) -> None:
    class Stuck(FakeSpace):
        def mutate(self, operator: Any, parents: Any, rng: random.Random) -> Candidate:
            if operator.name != "decay":
                raise NotApplicable("nothing")
            return Candidate(source_of([rng.randrange(10**6), 0, 0, 0]), "decay", (parents[0].id,), "grammar")

    settings = replace(collapsing(), search=SearchSettings(trials=12))
    search, events = start(settings, Stuck())
    simulate(search)
    assert [e["reason"] for e in notices(events)] == [
        "8 of the last 8 proposals are by one operator: the operator decay"
    ]
    settings = replace(settings, proposer=ProposerSettings("folder", str(folder)))
    for number in range(20):
        (folder / f"more{number}.py").write_text(source_of((number, number, 0, 0)))
    search, events = start(settings)
    simulate(search)
    assert notices(events) == [], "a folder's files are all by one operator: there is no other"


def test_a_notice_that_the_kill_came_before_is_made_good_and_none_is_made_twice() -> None:
    search, events = start(collapsing())
    for number in range(8):
        told(search, (f"100{number}", "search", 0, fitness(2.0)))
    assert [e["event"] for e in events[-3:]] == ["trial", "notice", "analysis"]
    for cut, missing in ((0, 0), (1, 1), (2, 2), (3, 0)):
        resumed, more = start(collapsing())
        resumed.replay(kept := events[: len(events) - cut])
        assert more == events[len(events) - missing :]
        told(resumed, ("1222", "search", 0, fitness(2.0)))
        assert len(notices([*kept, *more])) == 1


# How it ends


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("outcome", FAILURES.values(), ids=FAILURES)
def test_without_a_baseline_it_ends_and_says_so(outcome: Outcome, workers: int) -> None:
    search, events = start(make_settings(trials=5))
    simulate(search, workers, outcome=lambda _: outcome)
    assert search.end_reason == "no baseline could be trained" and search.finished
    assert not asks(events, "search") and search.best("search") is None


def test_the_noise_is_measured_on_a_baseline_that_can_be_trained() -> None:
    search, events = start(make_settings(trials=0, noise_seeds=2, confirm_seeds=0))
    simulate(search, outcome=lambda a: FAILURES["rejected"] if a.candidate.name == "strong" else outcome_of(a))
    assert [e["candidate"]["name"] for e in asks(events)] == ["strong", "plain", "third", "plain", "plain"]


@pytest.mark.parametrize("workers", [1, 3])
def test_when_nothing_can_be_changed_it_confirms_what_there_is(workers: int) -> None:
    search, events = start(make_settings(trials=5, noise_seeds=0, confirm_seeds=2), Barren())
    simulate(search, workers)
    assert search.end_reason == "no operator has anything new to make" and search.finished
    assert len(asks(events, "confirm")) == 2


def test_while_trials_run_a_proposer_without_ideas_waits_for_them() -> None:
    search, _ = start(make_settings(trials=5, noise_seeds=0), Barren())
    worker = Worker(search)
    baselines = [search.ask() for _ in range(3)]
    for step in worker.steps(baselines[0]):  # type: ignore[arg-type]
        step()
    assert search.ask() is None and search.end_reason is None
    for baseline in baselines[1:]:
        for step in worker.steps(baseline):  # type: ignore[arg-type]
            step()
    assert (assignment := search.ask()) and assignment.purpose == "confirm"


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "draws, reason, copies",
    [(8, "no operator has anything new to make", 0), (1, "nothing new in 200 proposals in a row", 200)],
)
def test_when_nothing_is_new_any_more_it_confirms_what_there_is(
    workers: int, draws: int, reason: str, copies: int
) -> None:
    search, events = start(make_settings(trials=1000, noise_seeds=0, draws=draws), FakeSpace(values=2))
    handed_out = simulate(search, workers)
    assert search.end_reason == reason and search.finished
    assert (2**4 - 2 if draws > 1 else 0) <= len({a.candidate.id for a in handed_out}) <= 2**4
    assert [a.purpose for a in handed_out[-4:]] == ["confirm"] * 4
    resumed, more = start(search.settings, FakeSpace(values=2))
    resumed.replay([*events, {"event": "end"}, {"event": "resume"}])
    simulate(resumed, workers)
    assert len(more) >= 2 * copies and bool(more) == bool(copies), "whoever goes on wants it to try again"


def test_many_workers_in_a_small_space_get_no_copies_and_wait() -> None:
    """Most of what one change can make of the baselines is handed out; the rest is idle until they have ended."""
    space = FakeSpace(values=4)
    search, events = start(make_settings(trials=200, noise_seeds=0, confirm_seeds=0), space)
    worker = Worker(search)

    def all_that_there_is() -> list[Assignment]:
        return list(iter(search.ask, None))

    def end(assignments: list[Assignment]) -> None:
        for assignment in assignments:
            for step in worker.steps(assignment):
                step()

    end(all_that_there_is())  # the baselines
    first = all_that_there_is()
    starts = [one.source for one in space.baselines().values()]
    near = {
        source_of([*genes[:slot], value, *genes[slot + 1 :]])
        for genes in ([int(gene) for gene in space.describe(start).values()] for start in starts)
        for slot in range(4)
        for value in range(4)
    } - {*starts}
    left_out = near - {one.candidate.source for one in first}
    assert len(left_out) <= len(near) // 4, "it draws, and gives up after some"
    assert search.ask() is None and not search.finished, "there is nothing new before one of them has ended"
    end(first)
    second = all_that_there_is()
    assert second, "what they came to has children of its own"
    assert not any(event["duplicate"] for event in asks(events))


def test_who_has_nothing_new_to_make_of_the_best_makes_it_of_others() -> None:
    """With one elite, whose few children are tried soon, it goes on with the children of the others."""
    search, events = start(make_settings(trials=60, elites=1, explore=0.0, noise_seeds=0), FakeSpace(values=4))
    simulate(search, outcome=lambda a: fitness(1.0 if a.candidate.name == "strong" else 2.0))
    assert search.end_reason == "trials"
    strong = FakeSpace().baselines()["strong"].id
    parents = [e["candidate"]["parents"][0] for e in asks(events, "search")]
    assert parents[0] == strong and len(set(parents)) > 3


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (BudgetSettings(minutes=1.5), "budget.minutes=1.5"),
        (BudgetSettings(device_hours=100 / 3600), "budget.device_hours=0.0277778"),
        (BudgetSettings(minutes=1.5, device_hours=1), "budget.minutes=1.5"),
    ],
)
def test_a_cap_ends_it_and_is_named(budget: BudgetSettings, reason: str) -> None:
    clock = Clock()
    search, events = start(replace(make_settings(trials=1000), budget=budget), clock=clock)

    def outcome(assignment: Assignment) -> Outcome:
        clock.now += 9.0
        return outcome_of(assignment)

    handed_out = simulate(search, 3, outcome=outcome)
    assert search.end_reason == reason and search.finished and search.ask() is None
    assert len(handed_out) == len(ends(events)) - sum(e["duplicate"] for e in asks(events))
    assert 10 <= len(handed_out) <= 14, "ten trials fill the cap, and up to three were running"


def test_the_cap_on_device_time_holds_over_interruptions_and_that_on_minutes_for_each_run() -> None:
    clock = Clock()
    settings = replace(make_settings(trials=1000), budget=BudgetSettings(minutes=1, device_hours=50 / 3600))
    search, events = start(settings, clock=clock)
    simulate(search)
    assert len(ends(events)) == 5
    clock.now += 3600
    resumed, _ = start(settings, clock=clock)
    resumed.replay(events)
    assert resumed.ask() is None and resumed.end_reason == "budget.device_hours=0.0138889"
    resumed, _ = start(replace(settings, budget=BudgetSettings(minutes=1)), clock=clock)
    resumed.replay(events)
    assert resumed.ask() is not None


def test_after_a_stop_nothing_is_handed_out_and_the_first_reason_stays() -> None:
    search, events = start(make_settings())
    assignment = search.ask()
    assert assignment
    search.stop("interrupted")
    search.stop("trials")
    assert search.ask() is None and search.end_reason == "interrupted" and not search.finished
    search.tell(untrained(assignment, fitness(2.0)))
    assert search.finished and len(events) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, genes in enumerate([(2, 2, 2, 2), (3, 3, 3, 3), (2, 2, 2, 2), (4, 4, 4, 4)]):
        (tmp_path / f"idea{number}.py").write_text(f"# file {number}\n" + source_of(genes))
    (tmp_path / "broken.py").write_bytes(b"def f(:\n\xff\n")
    (tmp_path / "notes.txt").write_text("no candidate")
    return tmp_path


@pytest.mark.parametrize("workers", [1, 3])
def test_a_folder_is_proposed_once_each_in_order_and_then_confirmed(folder: Path, workers: int) -> None:
    settings = replace(make_settings(trials=24), proposer=ProposerSettings("folder", str(folder)))
    search, events = start(settings)
    simulate(search, workers, outcome=lambda _: fitness(2.0))
    names = [(e["candidate"]["name"], e["duplicate"]) for e in asks(events, "search")]
    assert names == [("broken", False), ("idea0", False), ("idea1", False), ("idea2", True), ("idea3", False)]
    assert search.end_reason == "trials" and asks(events)[-1]["purpose"] == "confirm"


def test_a_folder_can_be_tried_without_any_baseline(folder: Path) -> None:
    settings = replace(make_settings(trials=2), proposer=ProposerSettings("folder", str(folder)))
    search, events = start(settings)
    simulate(search, outcome=fails(FAILURES["crashed"], "baseline"))
    assert len(asks(events, "search")) == 2 and search.end_reason == "trials"


@pytest.mark.parametrize("path", ["missing", "empty", "~nobody-of-this-name/x"])
def test_a_folder_without_candidates_is_one_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    given = path if path.startswith("~") else str(tmp_path / path)
    with pytest.raises(UserError, match=rf"^proposer.path={given}: "):
        start(replace(make_settings(), proposer=ProposerSettings("folder", given)))


# An interruption


def cut_and_continue(
    settings: Settings, events: list[Event], cut: int, space: FakeSpace, workers: int = 1, seed: int = 0
) -> list[Event]:
    """The events of a search that was killed after so many events and resumed."""
    resumed, more = start(settings, space)
    resumed.replay(json.loads(json.dumps(events[:cut])))
    simulate(resumed, workers, seed)
    return [*events[:cut], *more]


def check_nothing_lost_or_repeated(events: list[Event]) -> None:
    asked, ended = [e["trial"] for e in asks(events)], [e["id"] for e in ends(events)]
    assert len(set(asked)) == len(asked) and sorted(asked) == sorted(ended)
    rungs = [(e["trial"], e["step"]) for e in events if e["event"] == "rung"]
    assert len(set(rungs)) == len(rungs)
    for end in ends(events):
        assert [(end["id"], rung["step"]) for rung in end["rungs"]] == [r for r in rungs if r[0] == end["id"]]


SEARCHES = {
    "plain": (make_settings(trials=14), FakeSpace()),
    "uniform": (make_settings("uniform", trials=14), FakeSpace()),
    "many copies": (make_settings(trials=10, elites=2), FakeSpace(values=3)),
    "no confirmations": (make_settings(trials=6, confirm_seeds=0, noise_seeds=0), FakeSpace()),
    "ideas run out": (make_settings(trials=200, elites=3), FakeSpace(values=2)),
    "barren": (make_settings(trials=5), Barren()),
    "held": (make_settings(trials=30, tripwire=replace(WARY, least_leap=0.0)), FakeSpace()),
    "collapsing": (make_settings(trials=30, tripwire=replace(TRUSTING, collapse=0.51, collapse_window=8)), FakeSpace()),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_cut_after_any_event_goes_on_as_if_it_had_not_been(name: str) -> None:
    """With one worker: the same events in the same order, so the same candidates, credit and end."""
    settings, space = SEARCHES[name]
    search, whole = start(settings, space)
    simulate(search)
    assert bool(search.waiting()) == (name == "held") and bool(notices(whole)) == (name == "collapsing")
    cuts = range(len(whole) + 1) if len(whole) < 200 else sorted(random.Random(0).sample(range(len(whole) + 1), 30))
    for cut in cuts:
        assert cut_and_continue(settings, whole, cut, space) == whole, f"cut after {cut} events"


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("meta", POLICIES)
def test_with_several_workers_no_trial_is_lost_or_run_twice(meta: str, workers: int) -> None:
    settings, space = make_settings(meta, trials=14), FakeSpace(values=3)
    search, whole = start(settings, space)
    simulate(search, workers)
    for cut in range(0, len(whole) + 1, 3):
        events = cut_and_continue(settings, whole, cut, space, workers, seed=cut)
        check_nothing_lost_or_repeated(events)
        assert sum(not e["duplicate"] for e in asks(events, "search")) == 14


def test_a_search_of_a_folder_goes_on_as_if_it_had_not_been_cut(folder: Path) -> None:
    settings = replace(make_settings(trials=24), proposer=ProposerSettings("folder", str(folder)))
    search, whole = start(settings)
    simulate(search)
    for cut in range(len(whole) + 1):
        assert cut_and_continue(settings, whole, cut, FakeSpace()) == whole, f"cut after {cut} events"


def test_a_search_may_be_cut_again_and_again() -> None:
    settings, space = make_settings(trials=14), FakeSpace(values=3)
    search, whole = start(settings, space)
    simulate(search)
    events: list[Event] = []
    while len(events) < len(whole):
        resumed, more = start(settings, space)
        resumed.replay(events)
        simulate(resumed, until=lambda more=more: len(more) >= 3)  # type: ignore[misc]
        events += more
    assert events == whole


def test_what_was_running_goes_on_with_its_rungs() -> None:
    search, events = start(make_settings())
    assignment = search.ask()
    assert assignment
    search.tell_rung(assignment.trial, Rung(10, 3.0, 1.5, 1e4))
    resumed, more = start(make_settings())
    resumed.replay(events)
    assert resumed.ask() == replace(assignment, rungs=(Rung(10, 3.0, 1.5, 1e4),))
    assert more == [], "it was asked for already"
    resumed.tell_rung(assignment.trial, Rung(10, 3.0, 9.9, 1e4))
    assert more == [], "it was measured already"


def test_a_finished_search_goes_on_with_more_candidates() -> None:
    settings, longer = make_settings(trials=5), make_settings(trials=9)
    search, events = start(settings)
    simulate(search)
    resumed, more = start(settings)
    resumed.replay(events)
    simulate(resumed)
    assert more == [] and resumed.end_reason == "trials"
    resumed, more = start(longer)
    resumed.replay(events)
    simulate(resumed)
    assert sum(not e["duplicate"] for e in asks(more, "search")) == 4
    check_nothing_lost_or_repeated([*events, *more])
    confirmed = [(e["candidate"]["id"], e["budget"]["seed"]) for e in asks([*events, *more], "confirm")]
    assert len(set(confirmed)) == len(confirmed)


def test_events_of_other_kinds_are_passed_over() -> None:
    search, events = start(make_settings(trials=3))
    simulate(search)
    resumed, more = start(make_settings(trials=3))
    extra: list[Event] = [{"event": "search", "config": {}}, *events, {"event": "resume"}, {"event": "later"}]
    resumed.replay(extra)
    simulate(resumed)
    assert more == []


# What is told


def test_told_twice_counts_once() -> None:
    search, events = start(make_settings())
    assignment = search.ask()
    assert assignment
    for _ in range(2):
        search.tell_rung(assignment.trial, Rung(10, 3.0))
        search.tell_rung(assignment.trial, Rung(20, 2.5))
    search.tell_rung(assignment.trial, Rung(10, 3.0))
    assert search.rungs_of(assignment.trial) == (Rung(10, 3.0), Rung(20, 2.5))
    for outcome in (fitness(2.0), INFRASTRUCTURE):
        search.tell(untrained(assignment, outcome))
    assert [e["event"] for e in events] == ["ask", "rung", "rung", "trial"]
    assert outcome_kind(search.trials[assignment.trial].outcome) == "fitness"
    assert search.rungs_of(assignment.trial) == ()


@pytest.mark.parametrize("refused", range(0, 40, 3))
def test_what_the_journal_refuses_was_not_handed_out(refused: int) -> None:
    """A disk that fills up ends the run; the journal as it is then can be resumed."""
    settings, written = make_settings(trials=5), list[Event]()

    def record(event: Event) -> None:
        if len(written) == refused:
            raise OSError("no space left")
        written.append(json.loads(json.dumps(event)))

    with pytest.raises(OSError, match="no space left"):
        simulate(Search(settings, FakeSpace(), record))
    search, whole = start(settings)
    simulate(search)
    assert cut_and_continue(settings, written, refused, FakeSpace()) == whole


def test_fresh_seeds_are_kept_apart() -> None:
    search, _ = start(make_settings(trials=8, confirm_seeds=3))
    simulate(search)
    best = search.best("search")
    assert best
    by_seed = search.bits_per_byte_by_seed(best.candidate.id)
    assert set(by_seed) == {0, 1, 2, 3} if best.outcome.step == 40 else {1, 2, 3}  # type: ignore[union-attr]
    assert search.bits_per_byte_by_seed("nobody") == {}


def test_telling_does_not_wait_for_a_slow_proposer() -> None:
    search, _ = start(make_settings(trials=4))
    worker = Worker(search, stops=False)
    for _ in range(4):
        assignment = search.ask()
        assert assignment
        for step in worker.steps(assignment):
            step()
    running = search.ask()
    assert running and running.purpose == "search"
    entered, released = threading.Event(), threading.Event()
    propose = search._proposer.propose

    def slow(request: Any) -> Candidate:
        entered.set()
        assert released.wait(30)
        return propose(request)

    search._proposer.propose = slow  # type: ignore[method-assign]
    asked: list[Assignment | None] = []
    asking = threading.Thread(target=lambda: asked.append(search.ask()))
    asking.start()
    assert entered.wait(30)
    telling = threading.Thread(target=lambda: [step() for step in worker.steps(running)])
    telling.start()
    telling.join(30)
    assert not telling.is_alive() and running.trial in search.trials, "tell waits for the proposer"
    assert search.known_functions() == {} and search.over_budget() is False
    assert asking.is_alive()
    released.set()
    asking.join(30)
    assert asked[0] is not None and asked[0].trial in search.in_flight


def test_threads_that_tell_while_one_asks_lose_nothing() -> None:
    search, events = start(make_settings(trials=60, confirm_seeds=0))
    worker = Worker(search)
    threads = []
    while not search.finished:
        if assignment := search.ask():
            steps = worker.steps(assignment)
            threads.append(threading.Thread(target=lambda steps=steps: [step() for step in steps]))
            threads[-1].start()
    for thread in threads:
        thread.join(30)
    check_nothing_lost_or_repeated(events)
    assert sum(not e["duplicate"] for e in asks(events, "search")) == 60


# Rungs and imports


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40, 300, 2000])
@pytest.mark.parametrize("first", [1e-6, 0.1, 0.25, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("factor", [1.01, 1.5, 2, 3, 4.5, 1e6])
def test_rungs_rise_to_the_last_step(steps: int, first: float, factor: float) -> None:
    scheduler = SchedulerSettings(first_rung=first, reduction_factor=factor)
    rungs = rung_steps(Settings(train=TrainSettings(steps=steps), scheduler=scheduler))
    assert rungs[0] >= 1 and rungs[-1] == steps
    assert all(before < after for before, after in pairwise(rungs))
    assert rungs[0] == max(1, round(first * steps))


def test_the_usual_rungs() -> None:
    assert rung_steps(Settings()) == (64, 256)
    halved = SchedulerSettings(reduction_factor=2)
    assert rung_steps(Settings(train=TrainSettings(steps=300), scheduler=halved)) == (75, 150, 300)


def test_importing_the_search_is_quick_and_brings_no_accelerator_with_it() -> None:
    script = """
import sys, time
before = time.process_time()
import nas.search
print(time.process_time() - before)
print({"jax", "jaxlib", "flax", "optax", "orbax", "ray", "mlflow", "hydra", "scipy", "numpy"} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, imported = shown.stdout.splitlines()
    assert imported == "set()"
    assert float(seconds) < 0.5


@pytest.mark.parametrize("cap", [1, 4, 9])
def test_the_cap_on_trials_counts_all_of_them_and_lets_the_last_finish(cap: int) -> None:
    settings = replace(make_settings(trials=20), budget=BudgetSettings(trials=cap))
    search, events = start(settings)
    simulate(search, workers=3)
    assert search.end_reason == f"budget.trials={cap}"
    assert len(search.trials) == cap
    assert sum(event["event"] == "ask" for event in events) == cap


def test_a_collapse_onto_one_family_restarts_an_island() -> None:
    """No operator that is drawn here changes the family, and there are two to begin with."""
    tripwire = TripwireSettings(least_leap=100.0, collapse=0.6, collapse_window=8)
    settings = make_settings(tripwire=tripwire, trials=40, islands=2)
    weights = dict.fromkeys(("decay", "crossover", "simplify"), 0.0)
    search, events = start(replace(settings, meta=MetaSettings("fixed", weights=weights)))
    simulate(search)
    families = [event["family"] for event in events if event["event"] == "notice" and event["tripwire"] == "collapse"]
    assert any(families)
    without = Search(search.settings, FakeSpace(), lambda event: None)
    without.replay([{**event, "family": None} if event["event"] == "notice" else event for event in events])
    sizes = [[len(island.members) for island in one.population.islands] for one in (search, without)]
    assert sum(sizes[0]) < sum(sizes[1]), "the same journal without the answer to the collapse keeps them all"


def test_children_land_on_the_island_that_they_were_asked_for() -> None:
    search, events = start(make_settings(trials=24, islands=3, migrants=0))
    simulate(search, workers=3)
    islands = {event["candidate"]["id"]: event["island"] for event in asks(events, "search") if not event["duplicate"]}
    assert set(islands.values()) == {0, 1, 2}
    for number, island in enumerate(search.population.islands):
        here = {trial.candidate.id for trial in island.members if trial.purpose == "search"}
        trained = {name for name, asked in islands.items() if asked == number and search.archive.trial_of(name)}
        assert here == trained
    assert all(event["island"] is None for event in events if event["event"] == "ask" and event["purpose"] != "search")
