"""Searches that share what they have trained: taken in once, as parents alone, and told again by the journal alone."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from common import SPACE
from fakes import FakeSpace, Worker, fitness, make_settings, outcome_of, simulate, source_of, start

from nas.ablation import lineage
from nas.commands.guests import guests_of as shared_by
from nas.gate.settings import CHECKS
from nas.guest_folder import SharedFolder, SharedPlace
from nas.guests import Guests, guest_of, known_names
from nas.journal import Event
from nas.learned import Retold
from nas.live import Progress
from nas.replay import Script, difference
from nas.report.account import account_of
from nas.report.answers import answers
from nas.report.figures.tree import figure, layout
from nas.report.stories import stories
from nas.search import Assignment, Search
from nas.settings import BudgetSettings, ProbeSettings, Settings, TripwireSettings
from nas.store import Store, StoreError
from nas.summary import summarize
from nas.tasks.corpus import Corpus
from nas.tracking.projection import Projection
from nas.types import Budget, Candidate, Certificate, Cost, Fitness, Rung, Trial, trial_from_json, trial_to_json
from nas.verify import guests_of, trained, trials_of

CERTIFICATE = Certificate(dict.fromkeys(CHECKS, "seen"), 1e4, 100, 64, {"flops": 1.0}, "f" * 16)


class Here(Executor):
    """Does everything at once."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*arguments, **named))
        return done


def as_real(event: Event) -> Event:
    """A trial of these tests as a worker tells of it."""
    if event["event"] != "trial" or event["outcome"]["kind"] != "fitness":
        return event
    return {**event, "certificate": asdict(CERTIFICATE), "outcome": {**event["outcome"], "learning_rate": 0.008}}


def join(
    folder: Path, called: str, settings: Settings, journal: Sequence[Event] = (), **options: Any
) -> tuple[Search, list[Event]]:
    """A search that shares what it trains, new or resumed, and its journal."""
    events = list(journal)
    real = [as_real(event) for event in journal]
    guests = Guests(SharedFolder(folder, known_names(journal)), called, settings, real, Here())

    def record(event: Event) -> None:
        events.append(json.loads(json.dumps(event, allow_nan=False)))
        guests.take(as_real(events[-1]))

    search = Search(settings, options.pop("space", FakeSpace()), record, next_guest=guests.next, **options)
    search.replay(journal)
    if journal:
        guests.take({"event": "resume"})
    else:
        record({"event": "search", "name": called, "seed": settings.seed})
    return search, events


def of(events: Sequence[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def ids(trials: Sequence[Trial]) -> set[str]:
    return {trial.candidate.id for trial in trials}


def team(folder: Path, trials: int = 24, **settings: Any) -> list[tuple[Search, list[Event]]]:
    """Two searches, one after the other."""
    made = []
    for number, called in enumerate(("first", "second"), 1):
        search, events = join(folder, called, replace(make_settings(trials=trials, **settings), seed=number))
        simulate(search, stops=False)
        made.append((search, events))
    return made


def left(folder: Path) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("[!.]*.json")}


def example(number: int = 1, bits: float = 2.0, source: str = "", parents: tuple[str, ...] = ()) -> Trial:
    """What another search might have trained."""
    candidate = Candidate(source or source_of([number, 7, 7, 7]), "decay", parents, "grammar", "because")
    rungs = (Rung(10, bits + 0.1, 1.0, 1e4), Rung(40, bits, 4.0, 1e4))
    outcome = replace(fitness(bits), learning_rate=0.008)
    return Trial(
        f"t{number:04d}", candidate, "search", Budget(40, 0), outcome, Cost(1.0, 10.0, 12.0), rungs, CERTIFICATE
    )


# Taken in


def test_what_one_has_trained_to_the_end_the_other_takes_in_once(tmp_path: Path) -> None:
    (first, ours), (_, theirs) = team(tmp_path)
    assert not of(ours, "guest"), "there was nobody before it"
    whole = trained(first.trials.values(), "search")
    tried_before = {e["candidate"]["id"] for e in theirs[: theirs.index(of(theirs, "guest")[0])] if e["event"] == "ask"}
    taken = Counter(event["candidate"]["id"] for event in of(theirs, "guest"))
    assert taken == Counter(ids(whole) - tried_before) and len(taken) > 5
    for event in of(theirs, "guest"):
        search, _, trial = event["id"].partition(".")
        known = first.trials[trial]
        assert search.startswith("first-") and event["purpose"] == "guest"
        assert trial_from_json(event).rungs == known.rungs and event["candidate"]["source"] == known.candidate.source


def test_searches_at_the_same_time_learn_of_each_other_and_train_nothing_twice(tmp_path: Path) -> None:
    both = [join(tmp_path, name, replace(make_settings(trials=30), seed=n)) for n, name in enumerate(("one", "two"))]
    workers = [Worker(search, stops=False) for search, _ in both]
    while not all(search.finished for search, _ in both):
        for (search, _), worker in zip(both, workers, strict=True):
            if assignment := search.ask():
                for step in worker.steps(assignment):
                    step()
    for (_, events), (other, _) in (both, both[::-1]):
        guests = of(events, "guest")
        assert len(guests) > 5 and len({event["id"] for event in guests}) == len(guests)
        assert {event["candidate"]["id"] for event in guests} <= ids(trained(other.trials.values(), "search"))
        known: set[str] = set()
        for event in events:
            if event["event"] == "guest":
                assert event["candidate"]["id"] not in known
            if event["event"] == "ask" and event["purpose"] == "search":
                assert event["duplicate"] == (event["candidate"]["id"] in known)
            if event["event"] in ("ask", "guest"):
                known.add(event["candidate"]["id"])
        assert any(
            set(event["candidate"]["parents"]) & {g["candidate"]["id"] for g in guests} for event in of(events, "ask")
        )


def test_a_proposal_of_what_a_guest_is_is_a_copy(tmp_path: Path) -> None:
    (_, _), (_, theirs) = team(tmp_path, trials=40, explore=0.5, draws=1)
    guests = {event["candidate"]["id"]: event["id"] for event in of(theirs, "guest")}
    copies = [e for e in of(theirs, "trial") if e["candidate"]["id"] in guests]
    assert copies, "in a space so small somebody proposes one again"
    for copy in copies:
        assert copy["outcome"]["check"] == "novelty" and guests[copy["candidate"]["id"]] in copy["outcome"]["reason"]
        assert copy["cost"]["total_seconds"] == 0


def test_guests_wait_for_the_baselines_and_come_before_a_hand_out(tmp_path: Path) -> None:
    _, (_, theirs) = team(tmp_path)
    first = theirs.index(of(theirs, "guest")[0])
    baselines = [e for e in of(theirs, "trial") if e["purpose"] == "baseline"]
    assert all(theirs.index(end) < first for end in baselines)
    for before, event in pairwise(theirs):
        assert before["event"] != "guest" or event["event"] in ("guest", "ask")


def test_many_guests_hold_no_worker_up(tmp_path: Path) -> None:
    settings = make_settings(trials=4)
    for number in range(100):
        SharedFolder(tmp_path).publish(f"other.t{number:04d}", trial_to_json(example(10 + number)))
    search, events = join(tmp_path, "late", settings)
    simulate(search, stops=False)
    at_once = Counter(
        sum(e["event"] == "ask" for e in events[:place]) for place, e in enumerate(events) if e["event"] == "guest"
    )
    assert max(at_once.values()) == 32 and sum(at_once.values()) == 100


# What it counts for, and what not


def test_guests_cost_no_budget_and_earn_nothing(tmp_path: Path) -> None:
    _, (search, events) = team(tmp_path)
    proposed = [e for e in of(events, "ask") if e["purpose"] == "search"]
    assert sum(not event["duplicate"] for event in proposed) == 24
    own = [trial for trial in search.trials.values() if trial.purpose != "confirm"]
    assert search.device_seconds == sum(trial.cost.train_seconds for trial in search.trials.values())
    assert search.guests and not search.guests.keys() & search.trials.keys()
    assert {trial.purpose for trial in own} == {"baseline", "search"}
    (fidelity,) = search.audit.found()
    assert fidelity.reached == len({t.candidate.id for t in own if isinstance(t.outcome, Fitness)})
    alone, _ = start(search.settings)
    alone.replay([event for event in events if event["event"] != "guest"])
    ours, without = (
        {name: arm["pulls"] for name, arm in each._credit.policy.credit().items()} for each in (search, alone)
    )
    assert ours == pytest.approx(without)
    assert search.noise == alone.noise and search.archive.noise(40) == alone.archive.noise(40)
    assert search.reference_flops_per_token() == alone.reference_flops_per_token()


def test_results_name_only_what_was_trained_here(tmp_path: Path) -> None:
    settings = make_settings(trials=6)
    SharedFolder(tmp_path).publish("other.t0001", trial_to_json(example(bits=1.0)))
    search, events = join(tmp_path, "mine", settings)
    simulate(search)
    guest = search.archive.ranked()[0]
    assert guest.id == "other.t0001" and search.best("search") != guest != search.best("baseline")
    found = summarize(search)
    assert found.best == search.best("search") and all(row.trial.purpose != "guest" for row in found.rows)
    assert found.front and set(found.front.trials) <= search.trials.keys()
    assert "Guests: 1 trained by other searches" in found.markdown() and "other.t0001, has 1.0000" in found.markdown()
    assert guest.candidate.id not in {e["candidate"]["id"] for e in of(events, "ask") if e["purpose"] == "confirm"}
    assert search.known_functions()["f" * 16] == guest.candidate.id
    assert "Guests" not in summarize(start(settings)[0]).markdown()


def test_the_guests_land_on_islands_in_turns_and_bring_no_migration(tmp_path: Path) -> None:
    settings = make_settings(trials=1, islands=3, migrate_every=1, migrants=2)
    for number in range(6):
        SharedFolder(tmp_path).publish(f"other.t{number}", trial_to_json(example(10 + number)))
    search, events = join(tmp_path, "mine", settings)
    simulate(search, until=lambda: bool(of(events, "guest")))
    here = [sum(trial.purpose == "guest" for trial in island.members) for island in search.population.islands]
    assert here == [2, 2, 2]


def test_what_would_be_held_here_is_no_guest(tmp_path: Path) -> None:
    tripwire = TripwireSettings(leap=0.0, least_leap=0.5, collapse=1.0, collapse_window=100_000)
    for number, bits in ((1, 0.9), (2, 1.6)):
        SharedFolder(tmp_path).publish(f"other.t{number}", trial_to_json(example(number, bits)))
    search, events = join(tmp_path, "mine", make_settings(trials=3, tripwire=tripwire))
    simulate(search, outcome=lambda a: fitness(2.0) if a.purpose == "baseline" else outcome_of(a))
    assert [event["id"] for event in of(events, "guest")] == ["other.t2"]


def test_a_guests_score_is_this_searchs_own(tmp_path: Path) -> None:
    forged = example(bits=3.9)
    assert isinstance(forged.outcome, Fitness)
    record = trial_to_json(replace(forged, outcome=replace(forged.outcome, score=1e9)))
    SharedFolder(tmp_path).publish("other.t1", record)
    search, _ = join(tmp_path, "mine", make_settings(trials=2))
    simulate(search)
    assert search.archive.ranked()[0].purpose != "guest"


# Told again


def test_a_search_with_guests_goes_on_after_any_event_as_if_it_had_not_been_cut(tmp_path: Path) -> None:
    _, (search, whole) = team(tmp_path, trials=10)
    assert of(whole, "guest")
    for cut in range(1, len(whole) + 1):
        resumed, events = join(tmp_path, "second", search.settings, whole[:cut])
        simulate(resumed, stops=False)
        assert events == whole, f"cut after {cut} events"


def test_what_came_into_the_folder_meanwhile_is_taken_in_once_after_a_resume(tmp_path: Path) -> None:
    _, (search, whole) = team(tmp_path, trials=10)
    cut = whole.index(of(whole, "guest")[-1]) + 1
    SharedFolder(tmp_path).publish("third.t0001", trial_to_json(example()))
    resumed, events = join(tmp_path, "second", search.settings, whole[:cut])
    simulate(resumed, stops=False)
    names = [event["id"] for event in of(events, "guest")]
    assert len(set(names)) == len(names) and names.count("third.t0001") == 1
    assert set(names) == {event["id"] for event in of(whole, "guest")} | {"third.t0001"}


def test_a_killed_search_leaves_on_resume_what_it_could_not_leave_before(tmp_path: Path) -> None:
    (search, whole), _ = team(tmp_path / "shared", trials=8)
    ours = {name: record for name, record in left(tmp_path / "shared").items() if name.startswith("first-")}
    join(tmp_path / "elsewhere", "first", search.settings, whole)
    assert left(tmp_path / "elsewhere") == ours and len(ours) == len(trained(search.trials.values(), "search"))


def test_a_replay_takes_the_guests_of_its_record_and_no_folder(tmp_path: Path) -> None:
    _, (search, record) = team(tmp_path)
    record = record[1:]
    again, events = start(search.settings, script=Script([*record, {"event": "end", "reason": "trials"}]))
    simulate(again, stops=False)
    assert difference(record, events) is None and of(events, "guest")
    assert again.guests.keys() == search.guests.keys()


def test_what_was_learned_is_found_from_the_journal_alone(tmp_path: Path) -> None:
    _, (search, events) = team(tmp_path)
    retold = Retold(events, search.settings, FakeSpace())
    assert retold.credit.policy.credit() == search._credit.policy.credit()
    assert retold.posterior().measured == search.posterior().measured


# What is no guest


def damaged(**changes: Any) -> str:
    return json.dumps({**trial_to_json(example()), **changes})


RUNGS = trial_to_json(example())["rungs"]
DAMAGED = {
    "torn": damaged()[:-20],
    "empty": "",
    "a list": "[]",
    "nothing": "null",
    "nested": "[" * 100_000,
    "no text": damaged(candidate={**trial_to_json(example())["candidate"], "source": 7}),
    "a number in words": damaged(outcome={**asdict(example().outcome), "bits_per_byte": "2.0"}),
    "no number": damaged().replace('"bits_per_byte": 2.0', '"bits_per_byte": NaN'),
    "a huge number": damaged(outcome={**asdict(example().outcome), "peak_bytes": 10**40}),
    "held": damaged(outcome={"kind": "held", "tripwire": "leap", "reason": "", "fitness": asdict(example().outcome)}),
    "rejected": damaged(outcome={"kind": "rejected", "check": "static", "reason": "no"}),
    "stopped early": damaged(outcome={**asdict(example().outcome), "step": 10}),
    "another seed": damaged(budget={"steps": 40, "seed": 1}),
    "another budget": damaged(budget={"steps": 80, "seed": 0}),
    "other rungs": damaged(rungs=RUNGS[:1]),
    "no rungs": damaged(rungs=[]),
    "no certificate": damaged(certificate=None),
    "another gate": damaged(certificate={**asdict(CERTIFICATE), "checks": {"static": "seen"}}),
    "too long": damaged(padding="x" * 2**20),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_one_notice_and_nothing_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.t0001.json").write_text(content)
    SharedFolder(tmp_path).publish("other.t0002", trial_to_json(example(2)))
    settings = make_settings(trials=4)
    search, events = join(tmp_path, "mine", settings)
    simulate(search)
    assert [event["id"] for event in of(events, "guest")] == ["other.t0002"]
    (notice,) = of(events, "notice")
    assert notice["tripwire"] == "shared" and notice["file"] == "other.t0001" and "passed over" in notice["reason"]
    again, more = join(tmp_path, "mine", settings, events)
    simulate(again)
    assert more == events, "it is not told of twice"


@pytest.mark.parametrize("name", ["README", "a b.t1", "x.t1\u202e", "other.t0001.copy"])
def test_a_file_of_another_name_is_no_guest(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no record"):
        guest_of(name, damaged().encode(), make_settings())
    assert guest_of("other.t0001", damaged().encode(), make_settings()).id == "other.t0001"


def test_a_folder_that_is_none_costs_one_notice(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    search, events = join(tmp_path / "shared", "mine", make_settings(trials=6))
    simulate(search)
    assert search.end_reason == "trials"
    (notice,) = of(events, "notice")
    assert "nothing is shared in" in notice["reason"]


def test_the_source_of_a_guest_is_read_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    baseline = SPACE.baselines()["gla"].source
    source = f"{baseline}\nopen({str(marker)!r}, 'w').close()\nraise SystemExit\n"
    for number, text in enumerate(
        (source, "class TokenMixer(:", "x = " + "(" * 500, "\x00", "x = " + "-" * 90_000 + "1")
    ):
        SharedFolder(tmp_path / "shared").publish(f"other.t{number}", trial_to_json(example(number, source=text)))
    search, events = join(tmp_path / "shared", "mine", make_settings(trials=0), space=SPACE)
    baseline_trial = search.ask()
    while baseline_trial and baseline_trial.purpose == "baseline":
        for step in Worker(search).steps(baseline_trial):
            step()
        baseline_trial = search.ask()
    search._proposals_left = 1
    assert search.ask()
    guests = [trial_from_json(event) for event in of(events, "guest")]
    assert len(guests) == 5
    for guest in guests:
        for operator in SPACE.operators:
            try:
                SPACE.mutate(operator, [guest.candidate, guest.candidate], random.Random(0))
            except Exception as error:
                assert type(error).__name__ == "NotApplicable"
    assert not marker.exists()


# What is told of it


def test_a_lineage_begins_with_a_guest(tmp_path: Path) -> None:
    _, (_, events) = team(tmp_path)
    trials, guests = trials_of(events), guests_of(events)
    child = next(t for t in trials if set(t.candidate.parents[:1]) & ids(guests) and isinstance(t.outcome, Fitness))
    first = lineage(child.candidate, [*trials, *guests])[-1]
    assert first.trial == child.id and first.parent.id == child.candidate.parents[0]
    assert lineage(child.candidate, trials) == [] or lineage(child.candidate, trials)[0].parent.id != first.parent.id


def test_mlflow_and_the_live_view_know_the_parent_from_elsewhere(tmp_path: Path) -> None:
    _, (_, events) = team(tmp_path)
    projection, progress, tags, metrics = Projection(), Progress(24), {}, {}
    lines = []
    for event in events:
        lines.append(progress.take(event))
        for write in projection.writes({**event, "time": 1.0}):
            tags.setdefault(getattr(write, "trial", None), {}).update(getattr(write, "tags", {}))
            metrics.update({name: value for name, value, *_ in getattr(write, "metrics", ())})
    guests = {event["candidate"]["id"]: event["id"] for event in of(events, "guest")}
    told = [one for one in tags.values() if one.get("parent.trial") in guests.values()]
    assert told and metrics["guests"] == len(guests) and not set(guests.values()) & tags.keys()
    assert progress.guests == len(guests) and any(line and "guest" in line for line in lines)


def test_the_report_shows_a_guest_where_its_descendants_begin(tmp_path: Path) -> None:
    _, (search, events) = team(tmp_path / "shared")
    begun = {"config": asdict(search.settings), "corpus": {"name": "stdlib", "sha256": "ab" * 32}, **events[0]}
    timed = [{**event, "time": 2.0 * place} for place, event in enumerate([begun, *events[1:]])]
    account = account_of("second", timed, tmp_path)
    nodes, edges = layout(account)
    guests = {node["trial"]: node for node in nodes if node["operator"] == "guest"}
    parents = {parent for trial in account.trials for parent in trial.candidate.parents[:1]}
    assert guests and guests.keys() <= search.guests.keys()
    assert {search.guests[name].candidate.id for name in guests} <= parents
    begun_at = {(edge["depth"], edge["row"]) for edge in edges}
    assert all(node["depth"] == 0 and (0, node["row"]) in begun_at for node in guests.values())
    assert account.best and account.best.id in search.trials
    told = stories(account)
    assert all(["outcome", "trained by another search"] in told[name]["facts"] for name in guests)
    assert f"{len(search.guests)} guests, trained by other searches" in " ".join(answers(account)[0].because)
    figure(account)


# The folder


def test_the_folder_gives_each_record_of_others_once_and_whole(tmp_path: Path) -> None:
    ours, theirs = SharedFolder(tmp_path / "new" / "folder"), SharedFolder(tmp_path / "new" / "folder", known=["b"])
    assert ours.new() == []
    for name in "cab":
        ours.publish(name, {"name": name})
    ours.publish("a", {"name": "changed"})
    (ours.path / ".d.partial").write_text("{")
    (ours.path / "notes.txt").write_text("of a person")
    assert theirs.new() == [(name, json.dumps({"name": name}).encode()) for name in "ac"]
    assert theirs.new() == ours.new() == []


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_store_gives_each_record_of_others_once_and_whole(tmp_path: Path, scheme: str) -> None:
    store = Store(f"{scheme}://{tmp_path}")
    ours, theirs = SharedPlace(store, "terms"), SharedPlace(store, "terms", known=["b"])
    assert ours.new() == []
    for name in "cab":
        ours.publish(name, {"name": name})
    ours.publish("a", {"name": "changed"})
    assert theirs.new() == [(name, json.dumps({"name": name}).encode()) for name in "ac"]
    assert theirs.new() == ours.new() == []
    store.put("terms/huge.json", b"1" * 2_000_000)
    assert theirs.new() == [("huge", None)]


def test_a_store_that_is_away_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = SharedPlace(Store(f"file://{tmp_path}"), "terms")
    SharedPlace(Store(f"file://{tmp_path}"), "terms").publish("a", {})
    with monkeypatch.context() as away:
        away.setattr(Store, "get", lambda *_: (_ for _ in ()).throw(StoreError("not now")))
        with pytest.raises(StoreError):
            place.new()
    assert place.new() == [("a", b"{}")]


def test_the_folder_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "link.json").symlink_to(tmp_path / "secret")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    assert SharedFolder(folder).new() == [("folder", None), ("link", None), ("pipe", None)]


def test_searches_of_another_configuration_do_not_meet(corpus: Corpus, tmp_path: Path) -> None:
    base = make_settings()
    base = replace(base, search=replace(base.search, shared=str(tmp_path)))

    def place(settings: Settings, text: Corpus = corpus) -> Path:
        guests = shared_by(settings, text, "mine", [])
        assert guests
        guests.close()
        return guests._folder.path

    same = [
        replace(base, seed=9, name="other"),
        replace(base, search=replace(base.search, trials=99, islands=2)),
        replace(base, budget=BudgetSettings(trials=7, minutes=1.0)),
    ]
    others = [
        replace(base, train=replace(base.train, seed=1)),
        replace(base, train=replace(base.train, batch=3)),
        replace(base, model=replace(base.model, width=32)),
        replace(base, probe=ProbeSettings(size="tiny")),
        replace(base, scheduler=replace(base.scheduler, reduction_factor=2)),
        replace(base, budget=BudgetSettings(params=3.0)),
    ]
    assert {place(settings) for settings in same} == {place(base)}
    places = [place(base), *map(place, others), place(base, replace(corpus, sha256="0" * 64))]
    assert len(set(places)) == len(places) and all(one.parent == tmp_path for one in places)
    assert shared_by(make_settings(), corpus, "mine", []) is None


def test_an_assignment_of_before_is_not_disturbed(tmp_path: Path) -> None:
    """A guest that is tried here at this very moment is no guest."""
    search, events = join(tmp_path, "mine", make_settings(trials=6))
    running: Assignment | None = None
    worker = Worker(search, stops=False)
    while running is None or running.purpose != "search":
        running = search.ask()
        assert running
        if running.purpose != "search":
            for step in worker.steps(running):
                step()
    copy = replace(example(), candidate=running.candidate)
    SharedFolder(tmp_path).publish("other.t0001", trial_to_json(copy))
    for step in worker.steps(running):
        step()
    simulate(search)
    assert not of(events, "guest") and search.trials[running.trial].candidate.id == running.candidate.id
