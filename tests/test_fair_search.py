"""Noise and fidelity in a whole search: when they are known, what they do, and that a journal alone decides."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSpace, bits, fitness, make_settings, simulate, start

from nas.configuration import as_recorded, resumed
from nas.journal import Event
from nas.noise import Estimate, Noise, noise_from_json
from nas.replay import Script, difference
from nas.search import Assignment, Search
from nas.settings import Settings
from nas.summary import summarize
from nas.tracking.projection import Projection
from nas.tracking.writes import Write
from nas.types import Cost, Crashed, Fitness, Rung, Trial

FOUR = {"noise_baselines": 3, "noise_seeds": 2}


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def proposed(events: list[Event]) -> list[str]:
    return [event["candidate"]["source"] for event in of(events, "ask") if event["purpose"] == "search"]


# The noise


def test_it_is_measured_once_all_repeats_have_ended() -> None:
    search, events = start(make_settings(trials=6, **FOUR))
    simulate(search)
    (noise,) = of(events, "noise")
    repeats = of(events, "trial")[:9]
    assert [e["purpose"] for e in repeats] == ["baseline"] * 3 + ["confirm"] * 6
    assert events[events.index(noise) - 1] == repeats[-1] and noise["source"] == "measured"
    assert set(noise["score"]) == {"10", "40"} and noise["difference"]["40"]["freedom"] == 4
    assert search.noise == noise_from_json(noise) and search.archive.noise(40) == search.noise.score[40].deviation
    assert search.archive.noise_of_difference(40) == search.noise.difference[40].deviation


@pytest.mark.parametrize("workers", [2, 5])
def test_with_several_workers_too(workers: int) -> None:
    search, events = start(make_settings(trials=12, **FOUR))
    simulate(search, workers)
    (noise,) = of(events, "noise")
    alone, more = start(make_settings(trials=12, **FOUR))
    simulate(alone)
    assert noise == of(more, "noise")[0], "what is measured does not depend on who came first"


def test_later_repeats_do_not_change_what_was_settled() -> None:
    search, events = start(make_settings(trials=6, confirm_seeds=4, **FOUR))
    simulate(search)
    assert search.archive.noise(40) == pytest.approx(of(events, "noise")[0]["score"]["40"]["deviation"])


def test_a_baseline_that_fails_is_replaced_and_without_repeats_there_is_no_event() -> None:
    def outcome(assignment: Assignment) -> Any:
        if assignment.candidate.name == "plain":
            return Crashed("diverged", "no")
        return fitness(bits(int(assignment.candidate.id, 16), assignment.budget.seed))

    search, events = start(make_settings(trials=2, noise_baselines=2, noise_seeds=1))
    simulate(search, outcome=outcome)
    repeated = [e["candidate"]["name"] for e in of(events, "ask") if e["purpose"] == "confirm"][:2]
    assert repeated == ["strong", "third"] and of(events, "noise")[0]["difference"]["40"]["freedom"] == 1
    search, events = start(make_settings(trials=2, noise_seeds=0))
    simulate(search)
    assert of(events, "noise") == [] and search.noise_source is None


def test_a_gain_has_to_exceed_the_noise_of_a_difference() -> None:
    known = {step: Estimate(0.04, 4) for step in (10, 40)}
    paired = {step: Estimate(0.01, 3) for step in (10, 40)}
    for gained, gain in ((0.09, 0.0), (0.11, 0.11)):
        search, events = start(make_settings(trials=1), noise=Noise(known, paired))
        child: Callable[[Assignment], Fitness] = lambda a: fitness(2.0 - gained * (a.purpose == "search"))  # noqa: E731, B023
        simulate(search, stops=False, outcome=child)
        (end,) = [e for e in of(events, "trial") if e["purpose"] == "search" and e["outcome"]["kind"] == "fitness"]
        assert end["gain"] == pytest.approx(gain)


# What was known before


def cached(settings: Settings) -> tuple[Search, list[Event], list[Event]]:
    """A search that measures, and the events of one that takes over what it found."""
    first, measured = start(settings)
    simulate(first)
    second, events = start(settings, noise=first.noise)
    simulate(second)
    return second, events, measured


def test_what_is_known_is_not_measured_and_nothing_else_changes() -> None:
    search, events, measured = cached(make_settings(trials=14, **FOUR))
    (noise,) = of(events, "noise")
    assert events[0] == noise and (noise["source"], noise["spared"]) == ("cached", 6)
    assert search.noise == noise_from_json(of(measured, "noise")[0])
    assert [e["purpose"] for e in of(events, "ask")][:4] == ["baseline"] * 3 + ["search"]
    assert proposed(events) == proposed(measured), "a seed fixes the search, whatever is kept on the machine"
    gains = [[e["gain"] for e in of(told, "trial") if e["purpose"] == "search"] for told in (events, measured)]
    assert gains[0] == gains[1]
    assert "kept from an earlier search" in summarize(search).seeds


def test_a_resumed_search_takes_the_journals_and_never_what_is_kept() -> None:
    settings = make_settings(trials=8, **FOUR)
    _, whole, _ = cached(settings)
    other = Noise({40: Estimate(9.0, 1)}, {40: Estimate(9.0, 1)})
    for cut in range(1, len(whole), 2):
        for noise in (None, other):
            resumed, more = start(settings, noise=noise)
            resumed.replay(whole[:cut])
            simulate(resumed)
            assert [*whole[:cut], *more] == whole


def test_a_search_that_measures_may_be_cut_after_any_event() -> None:
    settings = make_settings(trials=6, **FOUR)
    search, whole = start(settings)
    simulate(search)
    for cut in range(len(whole) + 1):
        resumed, more = start(settings)
        resumed.replay(whole[:cut])
        simulate(resumed)
        assert [*whole[:cut], *more] == whole, f"cut after {cut} events"


@pytest.mark.parametrize("known", [True, False], ids=["cached", "measured"])
def test_a_replay_is_the_search(known: bool) -> None:
    settings = make_settings(trials=8, **FOUR)
    _, events, measured = cached(settings)
    record = events if known else measured
    ended = [*record, {"event": "end", "reason": "trials"}]
    noise = noise_from_json(of(record, "noise")[0]) if known else None
    again, more = start(settings, script=Script(ended), noise=noise)
    simulate(again)
    assert difference(record, more) is None


# An older journal


def test_an_ask_says_the_family_and_a_record_of_before_replays_to_the_same() -> None:
    search, events = start(make_settings(trials=6))
    simulate(search)
    asked = of(events, "ask")
    assert asked and all(e["family"] == FakeSpace().family(e["candidate"]["source"]) for e in asked)
    older = [{name: value for name, value in event.items() if name != "family"} for event in events]
    assert difference(older, events) is None
    again, _ = start(make_settings(trials=6))
    again.replay(older)
    assert again.trials.keys() == search.trials.keys() and again.best("search") == search.best("search")


def test_an_older_journal_goes_on_as_it_began() -> None:
    """Written before there were such settings and events: one baseline was repeated, and nothing settled."""
    settings = make_settings(trials=10, noise_baselines=1)
    search, whole = start(settings)
    simulate(search, until=lambda: len(of(whole, "trial")) >= 9)
    old = [{k: v for k, v in event.items() if k != "fidelity"} for event in whole if event["event"] != "noise"]
    resumed_search, more = start(settings)
    resumed_search.replay(old)
    simulate(resumed_search)
    assert [event["event"] for event in more].count("noise") == 1 and resumed_search.end_reason == "trials"
    repeats = [e for e in of(more, "ask") if e["purpose"] == "confirm"]
    assert not repeats[:-4], "nothing is repeated beside the seeds of the end"


def test_older_settings_are_read_as_what_was_done() -> None:
    config = asdict(Settings())
    for name in ("noise_baselines", "fidelity_bound", "fidelity_trials", "explore", "draws"):
        del config["search"][name]
    del config["meta"]["contexts"]
    config["fitness"] = {"kind": "bits_per_byte"}
    read = as_recorded(config)
    assert (read.search.explore, read.search.draws, read.meta.contexts) == (0.0, 1, False)
    assert read.search.noise_baselines == 1 and read.fitness == Settings().fitness
    assert resumed(Path("results/x"), config, Settings(), []).search.noise_baselines == 1


# Fidelity


def crossing(assignment: Assignment) -> Fitness:
    return fitness(2.0 + (int(assignment.candidate.id, 16) % 997) / 997, assignment.budget.steps)


def mislead(search: Search) -> None:
    """Every trial's first rung says the opposite of its last."""
    while assignment := search.ask():
        end = crossing(assignment)
        early = 6.0 - end.bits_per_byte
        stopped = assignment.purpose == "search" and int(assignment.candidate.id, 16) % 3 == 0
        search.tell_rung(assignment.trial, Rung(10, early))
        if not stopped:
            search.tell_rung(assignment.trial, Rung(40, end.bits_per_byte))
        ended = Trial(
            assignment.trial,
            assignment.candidate,
            assignment.purpose,
            assignment.budget,
            fitness(early, 10) if stopped else end,
            Cost(1.0, 10.0, 12.0),
            search.rungs_of(assignment.trial),
            stopped=stopped,
        )
        search.tell(ended)


def misled(**options: Any) -> tuple[Settings, Search, list[Event]]:
    settings = make_settings(trials=30, noise_seeds=0, confirm_seeds=0, **options)
    search, events = start(settings)
    mislead(search)
    return settings, search, events


def test_a_rung_that_misleads_is_noticed_once_and_earns_nothing_from_then_on() -> None:
    _, search, events = misled()
    (notice,) = [e for e in of(events, "notice") if e["tripwire"] == "fidelity"]
    assert notice["step"] == 10 and "does not carry over" in notice["reason"]
    at = events.index(notice)
    told = of(events[:at], "trial")[-1]
    assert told["fidelity"]["10"]["trials"] >= 8 and told["fidelity"]["10"]["high"] < 0.3
    assert told["fidelity"]["10"]["correlation"] == pytest.approx(-1)
    assert search.audit.weight(10) == 0.0 and of(events, "trial")[-1]["fidelity"]["10"]["weight"] == 0.0
    assert "it does not carry over, and gains there count 0.00" in "".join(summarize(search).fidelity)
    assert "understates the correlation" in summarize(search).fidelity[-1]


def test_what_is_gained_at_a_rung_in_doubt_is_not_credited() -> None:
    """The same search with and without the audit, up to its notice and beyond."""
    (_, _, events), (_, _, others) = misled(), misled(fidelity_trials=1000)
    at = next(n for n, event in enumerate(events) if event["event"] == "notice")
    assert events[:at] == others[:at] and not of(others, "notice")
    told, first = of(events, "trial"), len(of(events[:at], "trial"))
    early = [n for n in range(first, len(told)) if told[n]["stopped"] and (told[n]["gain"] or 0) > 0]
    assert early, "gains were measured there"
    for n in early:
        operator = told[n]["candidate"]["operator"]
        assert told[n]["credit"][operator]["reward"] <= told[n - 1]["credit"][operator]["reward"]


def test_an_audited_search_cut_after_any_event_goes_on_as_if_it_had_not_been() -> None:
    settings, _, whole = misled()
    for cut in range(0, len(whole) + 1, 5):
        again, more = start(settings)
        again.replay(whole[:cut])
        mislead(again)
        assert [*whole[:cut], *more] == whole, f"cut after {cut} events"


def test_a_faithful_rung_is_told_and_not_doubted() -> None:
    search, events = start(make_settings(trials=20, noise_seeds=0))
    simulate(search, outcome=crossing)
    assert [e for e in of(events, "notice") if e["tripwire"] == "fidelity"] == []
    (found,) = search.audit.found()
    assert found.correlation == pytest.approx(1.0) and found.low > 0.5
    assert summarize(search).fidelity[0].startswith("Fidelity of step 10 against step 40: rank correlation +1.00 [")


# The front


def test_the_front_is_in_the_summary() -> None:
    search, _ = start(make_settings(trials=12))
    simulate(search)
    summary = summarize(search)
    assert summary.front and summary.front.hypervolume >= summary.front.of_baselines > 0
    line = next(line for line in summary.markdown().splitlines() if line.startswith("Pareto front"))
    best = min(search.archive.ranked(), key=lambda t: t.outcome.bits_per_byte if t.outcome.step == 40 else 9)  # type: ignore[union-attr]
    assert best.id in summary.front.trials and "Hypervolume: " in line
    assert all(search.trials[trial].outcome.step == 40 for trial in summary.front.trials)  # type: ignore[union-attr]


# In MLflow


def written(events: list[Event]) -> tuple[dict[str, float], dict[str | None, dict[str, str]]]:
    """The search's metrics and everyone's tags, as the last write of each left them."""
    begin = {"event": "search", "name": "s", "seed": 0, "config": {}, "corpus": {}, "versions": {}}
    projection, metrics, tags = Projection(), dict[str, float](), dict[str | None, dict[str, str]]()
    for second, event in enumerate([begin, *events]):
        for write in projection.writes({**event, "time": 1e9 + second}):
            if isinstance(write, Write):
                tags.setdefault(write.trial, {}).update(write.tags)
                metrics.update({name: x for name, x, *_ in write.metrics} if write.trial is None else {})
    return metrics, tags


def end(search: Search) -> Event:
    front = summarize(search).front
    assert front
    return {"event": "end", "reason": "trials", "best": None, "summary": "", "pareto": asdict(front)}


def test_noise_fidelity_and_front_are_metrics_of_the_search() -> None:
    search, events = start(make_settings(trials=20, **FOUR))
    simulate(search, outcome=crossing)
    metrics, tags = written([*events, end(search)])
    (noise,) = of(events, "noise")
    assert metrics["noise.score.deviation.step_40"] == noise["score"]["40"]["deviation"]
    assert metrics["noise.difference.freedom.step_10"] == noise["difference"]["10"]["freedom"]
    (found,) = search.audit.found()
    assert metrics["fidelity.correlation.step_10"] == found.correlation and metrics["fidelity.weight.step_10"] == 1
    assert metrics["fidelity.low.step_10"] == found.low and metrics["fidelity.trials.step_10"] == found.trials
    front = summarize(search).front
    assert front and metrics["hypervolume"] == front.hypervolume and tags[None]["noise"] == "measured"
    assert {trial for trial, each in tags.items() if each.get("pareto") == "true"} == set(front.trials)


def test_who_is_no_longer_on_the_front_is_unmarked() -> None:
    search, events = start(make_settings(trials=6))
    simulate(search)
    last = end(search)
    moved = {**last, "pareto": {**last["pareto"], "trials": ["t0001"]}}
    _, tags = written([*events, last, {"event": "resume"}, moved])
    assert {trial for trial, each in tags.items() if each.get("pareto") == "true"} == {"t0001"}
    assert {t for t, each in tags.items() if each.get("pareto") == "false"} == set(last["pareto"]["trials"]) - {"t0001"}


def test_an_older_end_has_no_front() -> None:
    metrics, tags = written([{"event": "end", "reason": "trials", "best": None, "summary": ""}])
    assert "hypervolume" not in metrics and "pareto" not in tags[None]
