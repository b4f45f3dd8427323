"""Between Ray Tune and the search: Tune's `suggest` and `on_trial_*` become `ask` and `tell`."""

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from nas.preemption import Preempted
from nas.search import Assignment, Search
from nas.shared_trial import TROUBLE
from nas.trial import TrialSpec, fitness_json
from nas.types import Certificate, Cost, Crashed, Fitness, Outcome, Rung, Trial, outcome_from_json

_ASK_SECONDS = 0.05  # what is proposed by then is handed out at once: Tune looks again at an event, or in a second


@dataclass
class Running:
    """A trial that Tune knows: its assignment, the last rung's measurement, its certificate."""

    assignment: Assignment
    measured: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None


class AskTell(Searcher):
    """Asks in a thread, so that a slow proposer never holds up Tune's loop, and tells the search of every result.

    Args:
      search: what to ask and tell.
      make_spec: from an assignment to what a worker is sent.
      workers: trials at a time.
      constants: further values of a trial's config.
      asks: where the search is asked; a thread of its own if None.
      say: tells the person what troubles a worker, once each.
    """

    def __init__(
        self,
        search: Search,
        make_spec: Callable[[Assignment], TrialSpec],
        workers: int,
        constants: dict[str, Any],
        asks: Executor | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ):
        super().__init__(metric="bits_per_byte", mode="min")
        self._search = search
        self._make_spec = make_spec
        self._workers = workers
        self._constants = constants
        self._say = say
        self._said: set[str] = set()
        self._asking: Future[Assignment | None] | None = None
        self._asks = asks or ThreadPoolExecutor(1, thread_name_prefix="ask")
        self.running: dict[str, Running] = {}
        self.failure: BaseException | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self.failure or self._search.finished:
            return Searcher.FINISHED
        if len(self.running) >= self._workers:
            return None
        if self._asking is None:
            self._asking = self._asks.submit(self._search.ask)
        wait([self._asking], _ASK_SECONDS)
        if not self._asking.done():
            return None
        asking, self._asking = self._asking, None
        try:
            assignment = asking.result()
            if assignment is None:
                return Searcher.FINISHED if self._search.finished else None
            spec = self._make_spec(assignment)
        except Exception as error:  # an exception here would end Tune's loop without a word to the journal
            self.failure = error
            return Searcher.FINISHED
        self.running[trial_id] = Running(assignment)
        return {
            "trial": assignment.trial,
            "purpose": assignment.purpose,
            "spec": json.dumps(asdict(spec)),
            **self._constants,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.running and not self.failure:
            self._safely(self._take_result, self.running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        running = self.running.pop(trial_id, None)
        if running is None or self.failure or (self.halting and "outcome" not in _event_of(result)):
            return
        self._safely(self._take_end, running, result, error)

    def lost(self, trial_id: str, reason: str) -> None:
        """A trial lost its worker, and goes on with another one."""
        if trial_id in self.running and not self.failure:
            trial = self.running[trial_id].assignment.trial
            self._safely(self._search.note, {"event": "lost", "trial": trial, "reason": reason})

    def close(self) -> None:
        """Waits for no proposer: what it still proposes is not taken."""
        self._asks.shutdown(wait=False, cancel_futures=True)

    @property
    def halting(self) -> bool:
        """Whether the search has ended while trials run: those stay unfinished, to be resumed."""
        return self.failure is not None or (self._search.over_budget() and self._search.end_reason != "trials")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher now and then

    def _take_result(self, running: Running, result: dict[str, Any]) -> None:
        event = _event_of(result)
        if (trouble := event.get(TROUBLE)) and trouble not in self._said:
            self._said.add(trouble)
            self._say(trouble)
        running.certificate = json.loads(result.get("certificate", "null")) or running.certificate
        if "rung" in event:
            running.measured, running.cost = event["rung"], event["cost"]
            self._search.tell_rung(running.assignment.trial, rung_of(event["rung"]))

    def _take_end(self, running: Running, result: dict[str, Any] | None, error: bool) -> None:
        """A trial ended: by itself with its outcome, by the scheduler at a rung, or with its worker."""
        if result is not None and not error:
            self._take_result(running, result)
        event = _event_of(result)
        cost = event.get("cost") or running.cost or {}
        if error or result is None:
            reason = "its worker was lost, more often than it is tried again"
            outcome: Outcome = Crashed("infrastructure", reason)
        else:
            outcome = outcome_from_json(event.get("outcome") or self._stopped_fitness(running))
        assignment = running.assignment
        self._search.tell(
            Trial(
                id=assignment.trial,
                candidate=assignment.candidate,
                purpose=assignment.purpose,
                budget=assignment.budget,
                outcome=outcome,
                cost=Cost(**cost),
                rungs=self._search.rungs_of(assignment.trial),
                certificate=Certificate(**running.certificate) if running.certificate else None,
                stopped=isinstance(outcome, Fitness) and "outcome" not in event,
            )
        )

    def _stopped_fitness(self, running: Running) -> dict[str, Any]:
        """The outcome of a trial that the scheduler stopped: what its last rung measured."""
        return fitness_json(running.measured, self._search.settings.fitness.kind)

    def _safely(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.failure = error


class Losses(Callback):
    """Tells the search of each worker that was lost under a trial.

    What had notice is not counted against the trial, as Ray itself does not count a node that it has drained: a search
    on machines that come and go would end its longest trials otherwise.
    """

    def __init__(self, ask_tell: AskTell):
        self._ask_tell = ask_tell

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error()
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, Preempted) and cause.noticed:
            trial.run_metadata.num_failures -= 1
        self._ask_tell.lost(trial.trial_id, _how_lost(cause))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class EndOfSearch(Stopper):
    """Stops every trial once the search has ended before its time: a cap, an interrupt, a failure."""

    def __init__(self, ask_tell: AskTell):
        self._ask_tell = ask_tell

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ask_tell.halting

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _how_lost(error: BaseException | None) -> str:
    if isinstance(error, Preempted):
        return f"{error}, with notice"
    words = str(error)
    if "node" in words and "died" in words:
        return "its node was lost"
    return "its worker was lost" if isinstance(error, RayActorError) else f"its worker failed: {words[-500:]}"


def _event_of(result: dict[str, Any] | None) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((result or {}).get("event", "{}"))
    return event


def rung_of(measured: dict[str, Any]) -> Rung:
    return Rung(
        step=measured["step"],
        bits_per_byte=measured["bits_per_byte"],
        train_seconds=measured["train_seconds"],
        tokens_per_second=measured["tokens_per_second"],
    )
