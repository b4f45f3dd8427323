"""One simulated search: the real driver's code in the loop of Tune's controller, on a fleet in virtual time.

As Tune does, each turn of the loop takes new trials from the searcher while fewer than so many are pending, then
handles one event. Each call of the driver's code is measured by this process' CPU time, and waits for the disk by the
clock; both move the virtual time. What Tune itself does in a turn, and what MLflow's client does for a write in the
thread beside it, are measured apart (`nas.scaling.tune`, `nas.scaling.store`) and added.
"""

import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import psutil

from nas import knowledge
from nas.commands.folder import Folder
from nas.commands.search import assigned_spec, store_trial
from nas.commands.shown import as_shown
from nas.execution.ask_tell import AskTell
from nas.execution.scheduler import STOP, Halving
from nas.garbage import collect_seldom
from nas.journal import Event, Journal
from nas.live import Progress
from nas.llm.templates import Templates
from nas.proposers.llm import LlmProposer
from nas.scaling.team import Calls, Team
from nas.scaling.timeline import Interval, Timeline, busy_share
from nas.scaling.trials import Step, Trials
from nas.search import Search, rung_steps
from nas.settings import Settings
from nas.space import SearchSpace
from nas.tally import Tally
from nas.tasks.prepared import Corpus
from nas.tracking.projection import Projection

Value = TypeVar("Value")


@dataclass(frozen=True)
class Costs:
    """What is not run in the simulation, in seconds: measured apart, or assumed.

    Attributes:
      turn, turn_per_worker: of the driver's CPU, for a turn of Tune's loop: a part of its own, and one for each worker.
      write: from handing a write to MLflow's client to its end. write_cpu: of that, of the driver's CPU.
      actor: until a new worker is ready. reset: until one takes its next trial.
      gate: of an accelerator's time.
    """

    turn: float = 0.0
    turn_per_worker: float = 0.0
    write: float = 0.0
    write_cpu: float = 0.0
    actor: float = 6.0
    reset: float = 0.02
    gate: float = 5.0


@dataclass(frozen=True)
class Fleet:
    """So many accelerators, on which a trial that goes to its end trains for `train_seconds`.

    Attributes:
      pending: trials that Tune may have waiting for a worker to be ready; None for as many as there are workers.
    """

    workers: int
    train_seconds: float
    pending: int | None = None


@dataclass
class Found:
    """What a simulated search came to. Times in seconds, of virtual time unless it says CPU.

    Attributes:
      handled: of the driver for each result, its replacement's proposal included: CPU and waits.
      spent: of that by part: what -> CPU.
      synced: of the journal's waits for the disk.
      writes, write_lag: to MLflow; the longest that one waited.
    """

    fleet: Fleet
    trials: int = 0
    seconds: float = 0.0
    full_from: float = 0.0
    full_till: float = 0.0
    worked: list[Interval] = field(default_factory=list)
    waited: float = 0.0
    handled: list[float] = field(default_factory=list)
    spent: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)
    synced: list[float] = field(default_factory=list)
    journal_bytes: int = 0
    events: int = 0
    writes: int = 0
    write_lag: float = 0.0
    memory_before: int = 0
    memory: int = 0
    spec_bytes: list[int] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    llm_calls: dict[str, int] = field(default_factory=dict)
    by: dict[str, int] = field(default_factory=dict)
    stale: list[int] = field(default_factory=list)

    @property
    def busy(self) -> float:
        """Of the accelerators, from when all of them had a trial first until the last proposal was handed out."""
        return busy_share(self.worked, self.fleet.workers, self.full_from, self.full_till)

    @property
    def busy_whole(self) -> float:
        """The same from the beginning to the end: the baselines are trained first, the best on fresh seeds last."""
        return busy_share(self.worked, self.fleet.workers, 0.0, self.seconds)

    @property
    def driver_busy(self) -> float:
        return sum(self.spent.values()) / self.seconds if self.seconds else 0.0


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class _Running:
    """A trial as Tune knows it."""

    trial_id: str
    config: dict[str, Any]
    steps: Iterator[Step]


def simulated(settings: Settings, space: SearchSpace, fleet: Fleet, costs: Costs, folder: Path) -> Found:
    """Runs a search to its end, in a process as a driver's. Its journal and its trials' files are left in `folder`.

    Raises:
      UserError: as a search does.
    """
    collect_seldom()
    return _Simulation(settings, space, fleet, costs, folder).run()


class _Simulation:
    def __init__(self, settings: Settings, space: SearchSpace, fleet: Fleet, costs: Costs, folder: Path):
        self._settings, self._space, self._fleet, self._costs = settings, space, fleet, costs
        self._folder = Folder(folder)
        self._timeline = Timeline()
        self._found = Found(fleet, memory_before=psutil.Process().memory_info().rss)
        self._journal = Journal(self._folder.journal)
        self._listeners = self._made_listeners()
        self._writer_free = 0.0
        self._waits = 0.0  # of the present call for the disk
        self._projected = self._sent = 0.0  # CPU for MLflow, by the present call: measured, and added
        self._idle, self._started = fleet.workers, 0
        self._pending: set[str] = set()
        self._held = 0  # trials on workers
        self._search, self._team = self._made_search()
        self._trials = Trials(settings, space, fleet.train_seconds, costs.gate)
        corpus = Corpus("simulated", "0" * 64, str(folder), {}, 8.0, 0.0)
        self._ask_tell = AskTell(
            self._search,
            lambda assignment: self._spec(assignment, corpus),
            fleet.workers,
            {"cpus": 1, "preload": [], "sandbox": settings.sandbox.tier},
            asks=_AtOnce(),
        )
        self._halving = Halving(settings.train.steps, rung_steps(settings)[0], settings.scheduler.reduction_factor)

    def _made_search(self) -> tuple[Search, Team | None]:
        def note(event: Event) -> None:
            search.note(event)

        settings, team, ahead, stage = self._settings, None, None, None
        if settings.proposer.kind == "llm":
            team = Team(self._space, note)
            known = knowledge.load([self._space.notes] if self._space.notes else [])
            ahead = LlmProposer(settings, self._space, team, known, Templates(None), note)
            stage = Calls(self._timeline, team, settings.llm.concurrency, partial(self._timed, "team"))
            self._listeners.append(team.take)
        search = Search(settings, self._space, self._record, self._clock, ahead=ahead, stage=stage)
        return search, team

    def _clock(self) -> float:
        return self._timeline.now

    def _made_listeners(self) -> list[Callable[[Event], Any]]:
        """As `nas search` has them; MLflow's writer is in a thread of its own there."""
        progress, tally = Progress(self._settings.search.trials), Tally()
        return [progress.take, tally.take, lambda event: store_trial(self._folder, event), self._listen]

    def _spec(self, assignment: Any, corpus: Corpus) -> Any:
        return assigned_spec(assignment, self._search, self._settings, self._space, corpus, self._folder)

    # the journal and who hears of it

    def _record(self, event: Event) -> None:
        began, cpu = time.perf_counter(), time.thread_time()
        written = self._journal.append(event)
        wait = max(0.0, time.perf_counter() - began - (time.thread_time() - cpu))
        self._found.synced.append(wait)
        self._found.events += 1
        self._waits += wait
        for listener in self._listeners:
            listener(written)

    def _listen(self, event: Event) -> None:
        if event["event"] == "ask" and event["purpose"] == "search":
            self._found.full_till = self._timeline.now
            self._found.by[event["candidate"]["proposer"]] = self._found.by.get(event["candidate"]["proposer"], 0) + 1
            self._found.stale.append(event["stale"])
        if self._settings.tracking.kind == "none":
            return
        began = time.process_time()
        writes = len(self._projection.writes(as_shown(self._folder, event)))
        self._projected += time.process_time() - began
        self._found.writes += writes
        self._writer_free = max(self._writer_free, self._timeline.now) + writes * self._costs.write
        self._found.write_lag = max(self._found.write_lag, self._writer_free - self._timeline.now)
        self._sent += writes * self._costs.write_cpu

    # the driver

    def run(self) -> Found:
        found, first = self._found, {"event": "search", "name": "simulated", "seed": self._settings.seed}
        self._projection = Projection()
        gc.collect()
        self._search.note({**first, "config": asdict(self._settings), "corpus": {"name": "simulated"}})
        while True:
            self._hand_out()
            if self._search.finished and not self._held:
                break
            event = self._timeline.next()
            if event is None:  # whoever waits for a proposal that is being made looks again
                if self._ask_tell.failure:
                    raise self._ask_tell.failure
                self._timeline.now += 1.0
                continue
            event()
        if self._ask_tell.failure:
            raise self._ask_tell.failure
        self._search.close()
        self._journal.close()
        found.trials, found.seconds = len(self._search.trials), self._timeline.now
        found.journal_bytes = self._folder.journal.stat().st_size
        found.memory = psutil.Process().memory_info().rss
        if self._team:
            found.tokens, found.llm_calls = dict(self._team.tokens), dict(self._team.calls)
        return found

    def _timed(self, part: str, call: Callable[[], Value]) -> Value:
        """Makes the driver busy for as long as `call` takes."""
        self._waits = self._projected = self._sent = 0.0
        began = time.process_time()
        result = call()
        cpu = time.process_time() - began
        seconds = cpu + self._waits + self._sent
        self._timeline.now += seconds
        self._found.spent[part] += cpu - self._projected
        self._found.spent["disk"] += self._waits
        self._found.spent["mlflow"] += self._projected + self._sent
        self._found.calls[part] += 1
        if self._found.handled and part in ("ask", "result"):
            self._found.handled[-1] += seconds
        return result

    def _turn(self) -> None:
        seconds = self._costs.turn + self._costs.turn_per_worker * self._held
        self._timeline.now += seconds
        self._found.spent["tune"] += seconds
        if self._found.handled:
            self._found.handled[-1] += seconds

    def _hand_out(self) -> None:
        """New trials for whoever is idle."""
        most = self._fleet.workers if self._fleet.pending is None else self._fleet.pending
        while self._held < self._fleet.workers and len(self._pending) < most:
            name = f"tune-{self._held}-{len(self._found.handled)}-{len(self._found.spec_bytes)}"
            config = self._timed("ask", partial(self._ask_tell.suggest, name))
            if not isinstance(config, dict):
                return
            self._found.spec_bytes.append(len(config["spec"]))
            assignment = self._ask_tell.running[name].assignment
            running = _Running(
                name, {part: config[part] for part in ("trial", "purpose")}, self._trials.steps(assignment)
            )
            self._halving.on_trial_add(None, _as_tune_has_it(running))  # type: ignore[arg-type]
            self._pending.add(name)
            self._held += 1
            if self._held == self._fleet.workers and not self._found.full_from:
                self._found.full_from = self._timeline.now
            is_new = self._started < self._held
            self._started = max(self._started, self._held)
            wait = self._costs.actor if is_new else self._costs.reset
            self._timeline.put(self._timeline.now + wait, partial(self._ready, running))

    def _ready(self, running: _Running) -> None:
        self._turn()
        self._pending.discard(running.trial_id)
        self._go_on(running)

    def _go_on(self, running: _Running) -> None:
        """The worker works up to its next result; whatever it does not do until then it waits for the driver."""
        step, began = next(running.steps), self._timeline.now
        ends = began + step.seconds
        if step.seconds:
            self._found.worked.append((began, ends))
        self._timeline.put(ends, lambda: self._take(running, step.result, ends))

    def _take(self, running: _Running, result: dict[str, Any], told: float) -> None:
        self._found.waited += self._timeline.now - told
        self._found.handled.append(0.0)
        self._turn()
        if self._timed("result", lambda: self._ends(running, result)):
            self._held -= 1
        else:
            self._go_on(running)

    def _ends(self, running: _Running, result: dict[str, Any]) -> bool:
        """As `TuneController._process_trial_result`: whether the trial is over by this."""
        trial, name = _as_tune_has_it(running), running.trial_id
        if not result.get("done"):
            decision = self._halving.on_trial_result(None, trial, result)
            if decision != STOP:
                self._ask_tell.on_trial_result(name, result)
                return False
            result = {**result, "done": True}
        self._halving.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
        self._ask_tell.on_trial_complete(name, result)
        return True


def _as_tune_has_it(running: _Running) -> Any:
    return SimpleNamespace(trial_id=running.trial_id, config=running.config)
