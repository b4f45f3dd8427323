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
from endpoint import Endpoint, Reply, Request
from fakes import FakeSpace, Worker, make_settings, outcome_of
from team import Team

from nas.journal import Event
from nas.knowledge import Knowledge, Note
from nas.llm.client import Client
from nas.llm.recorded import Recorded
from nas.llm.spending import Spending
from nas.llm.templates import Templates
from nas.proposers.llm import LlmProposer
from nas.replay import Script, difference
from nas.search import Assignment, Search
from nas.settings import LlmSettings, ProposerSettings, Settings
from nas.types import Crashed, Outcome, Rejected

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

    def __init__(self, settings: Settings, earlier: Sequence[Event] = (), record: Sequence[Event] | None = None):
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
        self.search = Search(settings, space, self._record, ahead=self.proposer, script=script)
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


def test_a_replay_goes_on_after_a_kill(recorded: list[Event]) -> None:
    with searching(Team(write, broken=3, spoil=spoil, mend=mend), trials=6) as (running, _):
        record = running.run().events
    for cut in range(1, len(record), 4):
        again = Running(running.search.settings, record[:cut], record=record).run()
        assert again.search.end_reason == "trials", cut
        assert difference(record, again.events) is None, cut
