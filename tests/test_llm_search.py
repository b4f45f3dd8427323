"""Searches by LLM proposals over real HTTP, with simulated trials: what is proposed, mended, paid for and resumed."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from endpoint import (
    Endpoint,
    Reply,
    Request,
    drip,
    empty,
    enormous,
    half,
    hang,
    not_json,
    sse_half,
    status,
    text,
)
from fakes import Barren, FakeSpace, Worker, fitness, make_settings, outcome_of, source_of
from team import Team, role_of

from nas.journal import Event, JournalError
from nas.knowledge import Knowledge, Note
from nas.llm.answers import Unusable
from nas.llm.client import Client
from nas.llm.recorded import Recorded
from nas.llm.spending import Spending
from nas.llm.templates import Templates
from nas.proposers.llm import LlmProposer
from nas.replay import Script, difference
from nas.search import Assignment, Search
from nas.settings import BudgetSettings, LlmSettings, ModelPrice, ProposerSettings, Settings
from nas.tally import Tally
from nas.types import Budget, Candidate, Cost, Crashed, Outcome, Rejected, Rung, Trial, trial_to_json

KEY = "sk-secret-0123456789"
NOTES = Knowledge([Note("a", "On decay", ("decay",), claim="Decay helps."), Note("b", "On norm", ("norm",))])


def write(operator: str, sources: Sequence[str], rng: random.Random) -> str:
    """Another number for one slot, and a word that no candidate has yet."""
    source = re.sub(r"read = \d+", f"read = {rng.randrange(2, 90)}", sources[-1])
    return f"{source}    word = '{rng.getrandbits(40):x}'\n"


def spoil(source: str) -> str:
    return f"{source}    leak = 'leak'\n"


def mend(source: str) -> str:
    return source.replace("    leak = 'leak'\n", "").replace("    leak = 'leak'", "    sound = 'sound'")


def outcome(assignment: Assignment) -> Outcome:
    if "leak" in assignment.candidate.source:
        return Rejected("causality", "output 17 moved when input 40 changed")
    found = outcome_of(assignment)
    return found if not isinstance(found, Crashed | Rejected) else outcome_of(replace(assignment, purpose="baseline"))


def llm_settings(base_url: str, trials: int = 8, **llm: Any) -> Settings:
    defaults: dict[str, Any] = {"retries": 1, "backoff_seconds": 0.01, "timeout_seconds": 5, "concurrency": 2}
    named = LlmSettings(base_url=base_url, models=("tiny",), **{**defaults, **llm})
    settings = make_settings(trials=trials, noise_seeds=0, confirm_seeds=1)
    return replace(settings, proposer=ProposerSettings("llm"), llm=named)


class Running:
    """A search by an LLM and the journal that it writes."""

    def __init__(
        self,
        settings: Settings,
        earlier: Sequence[Event] = (),
        record: Sequence[Event] | None = None,
        guests: Sequence[Event] = (),
    ):
        self.events: list[Event] = [*earlier]
        self.prompts: dict[str, Event] = {}
        note = lambda event: self.search.note(event)  # noqa: E731
        completions: Any
        if record is None:
            spending = Spending(settings.llm)
            completions = Client(settings.llm, KEY, spending, note, self.prompts.__setitem__)
            for event in earlier:
                spending.take(event)
                completions.take(event)
        else:
            completions = Recorded(settings.llm, record, note)
        space = FakeSpace()
        self.proposer = LlmProposer(settings, space, completions, NOTES, Templates(), note)
        script = Script(record) if record is not None else None
        come = iter(guests)
        self.search = Search(
            settings, space, self._record, ahead=self.proposer, script=script, next_guest=lambda: next(come, None)
        )
        self.search.replay(earlier)
        self.search.note({"event": "resume"} if earlier else {"event": "search", "config": {}})

    def _record(self, event: Event) -> None:
        self.events.append({**json.loads(json.dumps(event, allow_nan=False)), "time": time.time()})

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    def run(self, workers: int = 1, until: Callable[[], bool] = lambda: False, **options: Any) -> "Running":
        """To the search's end; waits for proposals as a real worker does."""
        worker = Worker(self.search, **{"outcome": outcome, **options})
        running: list[list[Callable[[], None]]] = []
        deadline = time.monotonic() + 60
        try:
            while not until():
                assert time.monotonic() < deadline, "the search hangs"
                while len(running) < workers and (assignment := self.search.ask()):
                    running.append(worker.steps(assignment))
                if not running:
                    if self.search.finished:
                        break
                    time.sleep(0.002)
                for steps in running:
                    steps.pop(0)()
                running = [steps for steps in running if steps]
        finally:
            self.search.close()
        if self.search.finished:
            self._record({"event": "end", "reason": self.search.end_reason})
        return self

    def proposed(self) -> list[Event]:
        return [event for event in self.of("ask") if event["purpose"] == "search"]


Answer = Callable[[Request, int], Reply]


@contextmanager
def searching(answer: Answer, trials: int = 8, **llm: Any) -> Iterator[tuple[Running, Endpoint]]:
    with Endpoint(answer) as endpoint:
        yield Running(llm_settings(endpoint.base_url, trials, **llm)), endpoint


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_by_proposals_of_a_model(workers: int) -> None:
    team = Team(write, broken=3, spoil=spoil, mend=mend)
    with searching(team, trials=12, rewrite=0.5) as (running, _):
        running.run(workers)
    assert running.search.end_reason == "trials"
    by = Counter(event["candidate"]["proposer"] for event in running.proposed())
    assert by["llm"] >= 12 and not by["grammar"]
    kinds = Counter(event["plan"]["kind"] for event in running.of("draw"))
    assert {"diff", "rewrite", "repair"} <= kinds.keys()
    repaired = [event for event in running.proposed() if not event["own_idea"]]
    assert repaired and all("mended" in event["candidate"]["motivation"] for event in repaired)
    assert len([event for event in running.proposed() if event["own_idea"]]) == 12, "a repair is no new proposal"
    assert set(team.roles) == {"proposal", "repair", "analysis"}
    analyses = {event["trial"]: event for event in running.of("analysis")}
    assert {trial.id for trial in running.search.trials.values() if trial.purpose == "search"} == analyses.keys()
    assert any(event["by"] == "tiny" and event["lesson"] == "Do more of it." for event in analyses.values())
    assert all(event["candidate"]["predicted_gain"] == 0.02 for event in running.proposed() if event["own_idea"])


# Interrupted, resumed, replayed


def paid_for(events: Sequence[Event]) -> list[tuple[str, int, str]]:
    return [(event["work"], event["call"], event["prompt"]) for event in events if event["event"] == "completion"]


@pytest.fixture(scope="module")
def recorded() -> list[Event]:
    """The journal of a search with repairs and analyses, by two workers."""
    with searching(Team(write, broken=3, spoil=spoil, mend=mend), trials=6) as (running, _):
        return running.run(2).events


def test_killed_anywhere_it_pays_for_nothing_twice_and_loses_nothing(recorded: list[Event]) -> None:
    with Endpoint(Team(write, broken=3, spoil=spoil, mend=mend)) as endpoint:
        for cut in range(1, len(recorded), 3):
            running = Running(llm_settings(endpoint.base_url, 6), recorded[:cut])
            events = running.run(2).events
            assert running.search.end_reason == "trials"
            paid = paid_for(events)
            assert len(paid) == len(set(paid)), f"cut at {cut}"
            ended = [event["id"] for event in events if event["event"] == "trial"]
            assert len(ended) == len(set(ended))
            proposed = [event for event in running.proposed() if event["own_idea"]]
            assert len(proposed) == 6 and all(event["candidate"]["proposer"] == "llm" for event in proposed)
            works = [event["work"] for event in running.of("draw")]
            assert len(works) == len(set(works))
            analysed = [event["trial"] for event in running.of("analysis")]
            assert len(analysed) == len(set(analysed))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_recorded_search_is_replayed_to_the_same_journal(workers: int) -> None:
    with searching(Team(write, broken=3, spoil=spoil, mend=mend), trials=10) as (running, _):
        record = running.run(workers).events
    again = Running(running.search.settings, record=record).run(workers)
    assert again.search.end_reason == "trials"
    if workers == 1:
        assert difference(record, again.events) is None
    asked = lambda events: [e["candidate"]["id"] for e in events if e["event"] == "ask"]  # noqa: E731
    assert asked(again.events) == asked(record)
    assert paid_for(again.events) == paid_for(record), "the prompts are the same too"


def test_a_guest_is_a_parent_that_nobody_may_copy_and_a_replay_has_it_in_its_place() -> None:
    candidate = Candidate(source_of((2, 2, 2, 2)), "decay", motivation="it comes from elsewhere")
    rungs = (Rung(10, 1.9), Rung(40, 1.5))
    guest = Trial("other.t0001", candidate, "guest", Budget(40), fitness(1.5), Cost(), rungs)
    told = {"event": "guest", **trial_to_json(guest)}
    with Endpoint(Team(write)) as endpoint:
        running = Running(llm_settings(endpoint.base_url, 8), guests=[told]).run()
    assert [event["id"] for event in running.of("guest")] == ["other.t0001"]
    assert any(candidate.id in event["candidate"]["parents"] for event in running.proposed())
    assert any(
        candidate.source.strip() in json.dumps(prompt).replace("\\n", "\n") for prompt in running.prompts.values()
    )
    with pytest.raises(Unusable, match=f"it is {candidate.id}, which was tried"):
        running.proposer._refuse_copies(candidate.source, running.proposer._tried, set())
    again = Running(running.search.settings, record=running.events).run()
    assert difference(running.events, again.events) is None


class Flawed(Team):
    """A team some of whose answers fail or are of no use, by their number."""

    def __call__(self, request: Request, number: int) -> Reply:
        faults = {3: status(500), 5: text("what?"), 8: status(429, {"Retry-After": "0"}), 11: text(json.dumps({}))}
        return faults.get(number % 14) or super().__call__(request, number)


OPTIONS: dict[str, dict[str, Any]] = {
    "faults": {},
    "judge": {"judge": True},
    "cap": {"max_calls": 11, "retries": 2},
    "evolution": {"evolve_prompts": True, "analyst": False},
    "no patience": {"patience_seconds": 0.001},
}


@pytest.mark.parametrize("llm", OPTIONS.values(), ids=OPTIONS)
def test_whatever_happens_it_is_resumed_and_replayed(llm: dict[str, Any]) -> None:
    trials = 30 if "evolve_prompts" in llm else 9
    team = lambda: Flawed(write, broken=4, spoil=spoil, mend=mend)  # noqa: E731
    with searching(team(), trials=trials, **llm) as (running, _):
        record = running.run().events
    settings = running.search.settings
    again = Running(settings, record=record).run()
    assert difference(record, again.events) is None
    with Endpoint(team()) as endpoint:
        for cut in range(2, len(record), max(3, len(record) // 25)):
            there = replace(settings, llm=replace(settings.llm, base_url=endpoint.base_url))
            resumed = Running(there, record[:cut]).run(2)
            events = resumed.events
            assert resumed.search.end_reason == "trials", cut
            for told in (paid_for(events), names_of(events, "trial", "id"), names_of(events, "draw", "work")):
                assert len(told) == len(set(told)), cut
            for told in (names_of(events, "opinion", "work"), names_of(events, "prompt", "name")):
                assert len(told) == len(set(told)), cut
            ideas = [event for event in resumed.proposed() if event["own_idea"] and not event["duplicate"]]
            assert len(ideas) == trials, cut


def names_of(events: Sequence[Event], kind: str, name: str) -> list[Any]:
    return [event[name] for event in events if event["event"] == kind]


def test_a_replay_goes_on_after_a_kill(recorded: list[Event]) -> None:
    with searching(Team(write, broken=3, spoil=spoil, mend=mend), trials=6) as (running, _):
        record = running.run().events
    for cut in range(1, len(record), 4):
        again = Running(running.search.settings, record[:cut], record=record).run()
        assert again.search.end_reason == "trials", cut
        assert difference(record, again.events) is None, cut


# What an endpoint does wrong


def notices(running: Running) -> list[str]:
    return [event["reason"] for event in running.of("notice") if event["tripwire"] == "llm"]


def proposers(running: Running) -> Counter[str]:
    return Counter(event["candidate"]["proposer"] for event in running.proposed())


@pytest.mark.parametrize(
    ("cap", "spent"),
    [
        ({"max_calls": 7}, lambda events: len(events)),
        ({"max_tokens_total": 9000}, lambda events: sum(e["tokens_in"] + e["tokens_out"] for e in events)),
        (
            {"max_dollars": 0.01, "prices": (ModelPrice("tiny", 1.0, 2.0),)},
            lambda events: sum(e["dollars"] for e in events),
        ),
    ],
    ids=["calls", "tokens", "dollars"],
)
def test_caps_hold_to_within_one_call_and_the_grammar_goes_on(
    cap: dict[str, Any], spent: Callable[[list[Event]], float]
) -> None:
    name, limit = next(iter(cap.items()))
    with searching(Team(write), trials=12, concurrency=4, max_tokens=400, **cap) as (running, endpoint):
        running.run(3)
        calls = [*running.of("completion"), *running.of("call_failed")]
        dearest = max(spent([call]) for call in calls)
        assert limit <= spent(calls) <= limit + dearest
        assert len(endpoint.requests) == len(calls)
        assert running.search.end_reason == "trials" and len(running.proposed()) >= 12
        assert proposers(running)["llm"] and proposers(running)["grammar"]
        assert [reason for reason in notices(running) if name in reason] == [
            f"llm.{name}={limit:g} is reached: the grammar goes on alone"
        ]
        more = replace(running.search.settings.llm, **{name: 100 * limit})
        settings = replace(running.search.settings, llm=more)
        settings = replace(settings, search=replace(settings.search, trials=16))
        resumed = Running(settings, running.events).run(3)
        assert proposers(resumed)["llm"] > proposers(running)["llm"], "with a larger cap the team goes on"


@pytest.mark.parametrize(
    ("code", "words"), [(401, "the endpoint refuses the key"), (404, "the endpoint has no such model")]
)
def test_a_key_or_a_name_that_is_refused_is_tried_no_further(code: int, words: str) -> None:
    with searching(lambda request, number: status(code), trials=6) as (running, endpoint):
        running.run(2)
        assert running.search.end_reason == "trials" and proposers(running) == {"grammar": len(running.proposed())}
        assert len(endpoint.requests) <= 2, "as many as were begun at once"
        assert len(notices(running)) == 1 and words in notices(running)[0]


def test_with_another_key_a_resumed_search_asks_again() -> None:
    with searching(lambda request, number: status(401), trials=3) as (running, _):
        running.run()
    with Endpoint(Team(write)) as endpoint:
        settings = llm_settings(endpoint.base_url, 6)
        resumed = Running(settings, [event for event in running.events if event["event"] != "end"]).run()
        assert proposers(resumed)["llm"] >= 3


def proposal(**changes: Any) -> Reply:
    answer = {"motivation": "m", "because": "b", "predicted_gain": 0.1, "edits": None, "source": None, **changes}
    return text(json.dumps(answer))


FAULTS: dict[str, tuple[Reply, str, str]] = {  # reply, the event that tells of it, its kind
    "429": (status(429, {"Retry-After": "0"}), "call_failed", "rate limit"),
    "500": (status(500), "call_failed", "server"),
    "a hang": (hang(30), "call_failed", "timeout"),
    "a drip": (drip(30), "call_failed", "timeout"),
    "half an answer": (half(), "call_failed", "broken"),
    "half a chunked answer": (half(chunked=True), "call_failed", "broken"),
    "half a stream": (sse_half(), "call_failed", "broken"),
    "a page": (not_json(), "call_failed", "broken"),
    "nothing": (empty(), "call_failed", "empty"),
    "an enormous answer": (enormous(3_000_000), "call_failed", "too large"),
    "an enormous error": (enormous(3_000_000, 500), "call_failed", "too large"),
    "invalid JSON": (text('{"motivation": "m", '), "unusable", "json"),
    "another shape": (text('{"motivation": 3}'), "unusable", "schema"),
    "no number": (text('{"motivation": "m", "predicted_gain": NaN, "source": "x"}'), "unusable", "json"),
    "a diff that does not apply": (proposal(edits=[{"search": "nowhere", "replace": ""}]), "unusable", "diff"),
    "no Python": (proposal(source="class TokenMixer(:"), "unusable", "python"),
    "no mixer": (proposal(source="x = 1"), "unusable", "python"),
    "deep Python": (proposal(source=f"class TokenMixer: x = {'(' * 500}"), "unusable", "python"),
}


@pytest.mark.parametrize(("reply", "event", "kind"), FAULTS.values(), ids=FAULTS)
def test_no_fault_stops_the_search_and_each_is_counted_and_shown(reply: Reply, event: str, kind: str) -> None:
    team = Team(write)
    answer = lambda request, number: reply if number < 2 else team(request, number)  # noqa: E731
    options = {"timeout_seconds": 1.5 if kind == "timeout" else 10, "max_tokens": 4096, "analyst": False, "retries": 2}
    with searching(answer, trials=4, **options) as (running, _):
        running.run()
    assert running.search.end_reason == "trials" and proposers(running)["llm"] >= 2
    told = running.of(event)
    assert len(told) == 2 and {one["kind"] for one in told} == {kind}
    tally = Tally()
    for one in running.events:
        tally.take(one)
    assert f"2 {kind}" in tally.words()
    settings = running.search.settings
    assert difference(running.events, Running(settings, record=running.events).run().events) is None


def test_a_model_that_only_fails_rests_and_is_tried_again() -> None:
    team = Team(write)
    answer = lambda request, number: text("what?") if number < 9 else team(request, number)  # noqa: E731
    with searching(answer, trials=40, attempts=3, concurrency=1, analyst=False) as (running, _):
        running.run()
    assert len(running.of("unusable")) == 9 and len(running.of("no_proposal")) == 3
    assert "rests after 3 proposals without a usable answer" in notices(running)[0]
    by = proposers(running)
    assert by["grammar"] >= 12 and by["llm"] >= 10


def test_an_idle_worker_is_given_a_proposal_of_the_grammar_while_the_endpoint_hangs() -> None:
    with searching(lambda request, number: hang(30), trials=3, patience_seconds=0.05, timeout_seconds=30) as (
        running,
        _,
    ):
        began = time.monotonic()
        running.run()
        assert time.monotonic() - began < 15, "the calls that hang are given up at the end"
    assert proposers(running) == {"grammar": len(running.proposed())} and running.search.end_reason == "trials"
    assert all(event["work"] is None for event in running.proposed())


def test_workers_do_not_wait_for_a_slow_endpoint_that_can_be_asked_ahead() -> None:
    """A proposal takes four times as long as a trial; one at a time they set the pace, asked for ahead they do not."""
    team, trial_seconds = Team(write), 0.08

    def slow(request: Request, number: int) -> Reply:
        time.sleep(4 * trial_seconds)
        return team(request, number)

    def outcome_later(assignment: Assignment) -> Outcome:
        time.sleep(trial_seconds)
        return outcome(assignment)

    def seconds_per_proposal(**llm: Any) -> tuple[float, list[int]]:
        with searching(slow, trials=14, analyst=False, **llm) as (running, _):
            running.run(outcome=outcome_later)
        times = [event["time"] for event in running.proposed()][-8:]
        return (times[-1] - times[0]) / 7, [event["stale"] for event in running.proposed()]

    one_by_one, fresh = seconds_per_proposal(ahead=1, concurrency=1)
    ahead, stale = seconds_per_proposal(concurrency=6)
    assert ahead < one_by_one / 1.7
    assert max(fresh) <= 1 < max(stale) <= 8


# The rest of the team


def test_the_judge_sees_no_score_and_decides_nothing() -> None:
    asked: list[Request] = []
    team = Team(write)

    def answer(request: Request, number: int) -> Reply:
        asked.append(request)
        return team(request, number)

    with searching(answer, trials=4, judge=True, analyst=False) as (running, _):
        running.run()
    opinions = running.of("opinion")
    assert len(opinions) == 4 == proposers(running)["llm"] and {event["novelty"] for event in opinions} == {3}
    judged = [request for request in asked if role_of(request) == "opinion"]
    assert judged and not any(
        "bits per byte" in message["content"] for request in judged for message in request["messages"][1:]
    )


def test_an_answer_that_can_not_be_used_is_sent_back_with_what_is_wrong() -> None:
    sent: list[Request] = []
    team = Team(write)

    def answer(request: Request, number: int) -> Reply:
        sent.append(request)
        if role_of(request) == "proposal" and len(request["messages"]) == 2:
            return text(
                json.dumps(
                    {
                        "motivation": "m",
                        "because": "b",
                        "predicted_gain": 0,
                        "edits": [{"search": "colour = 3", "replace": ""}],
                        "source": None,
                    }
                )
            )
        return team(request, number)

    with searching(answer, trials=3, analyst=False, rewrite=1.0) as (running, _):
        running.run()
    assert proposers(running)["llm"] == 3
    assert Counter(event["kind"] for event in running.of("unusable")) == {"diff": 3}
    again = [request["messages"] for request in sent if len(request["messages"]) == 4]
    assert len(again) == 3 and all("colour = 3" in messages[3]["content"] for messages in again)
    assert [message["role"] for message in again[0]] == ["system", "user", "assistant", "user"]


def test_a_copy_is_sent_back_with_what_it_resembles() -> None:
    sent: list[Request] = []

    def answer(request: Request, number: int) -> Reply:
        sent.append(request)
        source = "class TokenMixer:\n    decay = 1\n    write = 1\n    read = 0\n    norm = 0\n"
        return text(
            json.dumps({"motivation": "m", "because": "b", "predicted_gain": 0.5, "edits": None, "source": source})
        )

    with searching(answer, trials=2, analyst=False) as (running, _):
        running.run()
    assert {event["kind"] for event in running.of("unusable")} == {"copy"}
    assert any("[[begin candidate" in request["messages"][-1]["content"] for request in sent)
    assert proposers(running) == {"grammar": len(running.proposed())}


def test_prompts_evolve_when_asked_to_and_their_variants_are_used() -> None:
    team, systems = Team(write), set()

    def answer(request: Request, number: int) -> Reply:
        if role_of(request) == "proposal":
            systems.add(request["messages"][0]["content"].startswith("Be bold."))
        return team(request, number)

    with searching(answer, trials=60, evolve_prompts=True, analyst=False) as (running, _):
        running.run()
        record = running.events
    assert running.of("prompt") and systems == {True, False}
    used = Counter(event["plan"]["prompt"] for event in running.of("draw"))
    assert used["researcher-1"] >= 1
    again = Running(running.search.settings, record=record).run()
    assert difference(record, again.events) is None


def test_models_share_the_work_by_gain_per_dollar() -> None:
    """Over a dozen searches: where one has few gains it has little to go by. One call at a time: no luck of threads."""
    prices, used = (ModelPrice("good", 1.0, 1.0), ModelPrice("dear", 500.0, 500.0)), Counter[str]()
    for seed in range(12):
        with Endpoint(Team(write)) as endpoint:
            settings = llm_settings(endpoint.base_url, 60, prices=prices, analyst=False, concurrency=1, ahead=1)
            settings = replace(settings, seed=seed, llm=replace(settings.llm, models=("good", "dear")))
            running = Running(settings).run()
        used.update(event["plan"]["model"] for event in running.of("draw"))
    assert used["good"] > used["dear"] > 0


def test_a_journal_of_before_there_were_teams_goes_on() -> None:
    running = Running(replace(llm_settings("http://127.0.0.1:9/v1"), proposer=ProposerSettings()))
    grammar = Search(running.search.settings, FakeSpace(), running._record)
    worker = Worker(grammar, outcome=outcome)
    for _ in range(6):
        for step in worker.steps(grammar.ask() or pytest.fail("nothing to try")):
            step()
    older = [
        {key: value for key, value in event.items() if key not in ("work", "stale", "own_idea")}
        for event in running.events
        if event["event"] != "analysis"
    ]
    resumed = Search(running.search.settings, FakeSpace(), running._record)
    resumed.replay(older)
    assert resumed.trials.keys() == grammar.trials.keys() and resumed.ask() is not None


# How it ends


def test_what_a_job_can_not_write_is_told_to_whoever_asks_next() -> None:
    with searching(lambda request, number: text("what?"), trials=3, attempts=1) as (running, _):

        def full(event: Event) -> None:
            if event["event"] == "no_proposal":
                raise JournalError("the journal can't be written: no space left on device")
            running.events.append(event)

        running.search._journal = full
        with pytest.raises(JournalError, match="no space left"):
            running.run()


def test_an_engineer_that_hangs_does_not_hold_up_the_end() -> None:
    team = Team(write, broken=2, spoil=spoil, mend=mend)

    def answer(request: Request, number: int) -> Reply:
        return hang(30) if role_of(request) == "repair" else team(request, number)

    with searching(answer, trials=4, patience_seconds=0.1, timeout_seconds=30, concurrency=4) as (running, _):
        began = time.monotonic()
        running.run()
        assert time.monotonic() - began < 20
    assert running.search.end_reason == "trials"
    assert "patience" in {event["cause"] for event in running.of("no_proposal")}
    assert any(event["purpose"] == "confirm" for event in running.of("ask"))
    again = Running(running.search.settings, record=running.events).run()
    assert again.search.end_reason == "trials"


def test_a_grammar_with_nothing_to_change_ends_no_search_of_a_team() -> None:
    team = Team(write)
    answer = lambda request, number: text("what?") if number in (4, 5, 6) else team(request, number)  # noqa: E731
    with searching(answer, trials=12, analyst=False, concurrency=1) as (running, _):
        running.search._proposer._space = Barren()
        running.run()
    assert proposers(running) == {"llm": 12} and running.of("no_proposal")


def test_nothing_is_asked_for_that_the_budget_leaves_no_trial_for() -> None:
    with Endpoint(Team(write)) as endpoint:
        settings = llm_settings(endpoint.base_url, 40, analyst=False)
        running = Running(replace(settings, budget=BudgetSettings(trials=9))).run(2)
    assert running.search.end_reason == "budget.trials=9"
    assert len(running.of("draw")) == len(running.proposed())
