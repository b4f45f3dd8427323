"""A team of language models that answers at once and takes its time: what it writes is the grammar's."""

import json
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from nas.ahead import Done
from nas.journal import Event
from nas.llm.client import Call
from nas.scaling.timeline import Timeline
from nas.space import NotApplicable, SearchSpace
from nas.types import Candidate

SECONDS = {"researcher": 20.0, "engineer": 10.0, "analyst": 8.0}  # median of one call; assumed
_SPREAD = 0.4  # standard deviation of its logarithm
_LETTERS_PER_TOKEN = 3.5
_PROSE = "What changes, why it should help, and what speaks against it, in as many words as a model would take. " * 4


class Team:
    """Satisfies `nas.proposers.llm.Completions`. Counts tokens by letters.

    Args:
      note: takes an event to the journal.
    """

    def __init__(self, space: SearchSpace, note: Callable[[Event], None]):
        self.tokens: Counter[str] = Counter()  # "ROLE in", "ROLE out"
        self.calls: Counter[str] = Counter()
        self.seconds = 0.0  # that the calls since the last look have taken
        self._space = space
        self._note = note
        self._sources: dict[str, Candidate] = {}
        self._draws: dict[str, Event] = {}

    def take(self, event: Event) -> None:
        """Hears of candidates, and of who is to make what of them."""
        if event["event"] == "ask":
            made = event["candidate"]
            self._sources[made["id"]] = Candidate(made["source"], made["operator"], tuple(made["parents"]))
        elif event["event"] == "draw":
            self._draws[event["work"]] = event

    def complete(self, call: Call) -> str:
        rng = random.Random(f"{call.work}/{call.number}")
        text = json.dumps(self._answer(call, rng))
        seconds = SECONDS[call.role] * math.exp(rng.gauss(0.0, _SPREAD))
        letters = sum(len(message["content"]) for message in call.messages)
        told = {"tokens_in": int(letters / _LETTERS_PER_TOKEN), "tokens_out": int(len(text) / _LETTERS_PER_TOKEN)}
        self.calls[call.role] += 1
        self.tokens.update({f"{call.role} in": told["tokens_in"], f"{call.role} out": told["tokens_out"]})
        self.seconds += seconds
        about = {"work": call.work, "call": call.number, "role": call.role, "model": call.model, "prompt": "0" * 64}
        answer = {"text": text, "finish": "stop", "estimated": True, "dollars": 0.0, "seconds": round(seconds, 3)}
        self._note({"event": "completion", **about, **answer, **told})
        return text

    def close(self) -> None:
        """There is nothing to end."""

    def _answer(self, call: Call, rng: random.Random) -> dict[str, Any]:
        if call.role == "analyst":
            return {"text": _PROSE[:800], "effect": "none", "lesson": _PROSE[:200]}
        draw = self._draws[call.work]
        parents = [self._sources[name] for name in draw["parents"]]
        change = {"motivation": _PROSE, "source": self._child(draw["operator"], parents, rng)}
        if call.role == "engineer":
            return {**change, "same_idea": True}
        return {**change, "because": _PROSE[:200], "predicted_gain": round(rng.uniform(0, 0.05), 3)}

    def _child(self, name: str, parents: list[Candidate], rng: random.Random) -> str:
        """By the operator that was drawn, or by any that finds something to change."""
        possible = [operator for operator in self._space.operators if operator.parents <= len(parents)]
        rng.shuffle(possible)
        for operator in sorted(possible, key=lambda one: one.name != name):
            try:
                child = self._space.mutate(operator, parents, rng)
                if rng.random() < 0.5:  # a model seldom writes what another has written before
                    child = self._space.mutate(rng.choice(self._space.operators[:-2]), [child], rng)
                return child.source
            except NotApplicable:
                continue
        return parents[0].source


class Calls:
    """Satisfies `nas.ahead.Stage`: so many jobs at a time, each as long as its calls take, in virtual time.

    Args:
      timed: runs what makes the driver busy: threads of one process share its interpreter.
    """

    def __init__(self, timeline: Timeline, team: Team, concurrency: int, timed: Callable[[Callable[[], None]], None]):
        self._timed = timed
        self._timeline = timeline
        self._team = team
        self._free = concurrency
        self._waiting: deque[tuple[str, Callable[[], Any], Done]] = deque()

    def begin(self, work: str, job: Callable[[], Any], done: Done) -> None:
        self._waiting.append((work, job, done))
        self._timeline.put(
            self._timeline.now, lambda: self._timed(self._start)
        )  # not within the caller, who holds the search's lock

    def _start(self) -> None:
        if not self._free or not self._waiting:
            return
        self._free -= 1
        work, job, done = self._waiting.popleft()
        self._team.seconds = 0.0
        try:
            result = job()
        except Exception as error:
            result = error
        self._timeline.put(
            self._timeline.now + self._team.seconds, lambda: self._timed(lambda: self._end(work, result, done))
        )

    def _end(self, work: str, result: Any, done: Done) -> None:
        self._free += 1
        done(work, result)
        self._start()

    def close(self) -> None:
        self._waiting.clear()
