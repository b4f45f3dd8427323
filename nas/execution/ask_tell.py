"""Between Ray Tune and the search: Tune's `suggest` and `on_trial_*` become `ask` and `tell`."""

import json
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from nas.preemption import Preempted
from nas.search import Assignment, Search
from nas.shared_trial import TROUBLE
from nas.trial import TrialSpec, fitness_json
from nas.types import Certificate, Cost, Crashed, Fitness, Outcome, Rung, Trial, outcome_from_json

MOST_LOSSES = 2  # of a trial's workers without notice: it goes on from its checkpoint with another one so often
_MOST_LETTERS = 500
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

    A trial that loses its worker is handed out again, as another one of Tune's, and goes on from its checkpoint. Tune's
    own second chance ends a trial whose worker dies while it is made ready for it.

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
        self._again: deque[Assignment] = deque()
        self._losses: Counter[str] = Counter()  # trial -> workers that it lost without notice
        self.failure: BaseException | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self.failure or self._search.finished:
            return Searcher.FINISHED
        if len(self.running) >= self._workers:
            return None
        try:
            assignment = self._again.popleft() if self._again else self._asked()
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
            "spec": json.dumps(vars(spec), default=asdict),  # asdict copies what is known of ten thousand trials
            **self._constants,
        }

    def _asked(self) -> Assignment | None:
        """What the search hands out next; None if that is nothing, or not known yet."""
        if self._asking is None:
            self._asking = self._asks.submit(self._search.ask)
        wait([self._asking], _ASK_SECONDS)
        if not self._asking.done():
            return None
        asking, self._asking = self._asking, None
        return asking.result()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.running and not self.failure:
            self._safely(self._take_result, self.running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            return  # `lost` is told of it next, and why
        running = self.running.pop(trial_id, None)
        if running is None or self.failure or (self.halting and "outcome" not in _event_of(result)):
            return
        self._safely(self._take_end, running, result or {})

    def lost(self, trial_id: str, reason: str, noticed: bool) -> None:
        """A trial lost its worker. What had notice is not counted: it says nothing of the trial."""
        running = self.running.pop(trial_id, None)
        if running is not None and not self.failure and not self.halting:
            self._losses[running.assignment.trial] += not noticed
            self._safely(self._take_loss, running, reason)

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

    def _take_loss(self, running: Running, reason: str) -> None:
        trial = running.assignment.trial
        if self._losses[trial] <= MOST_LOSSES:
            self._search.note({"event": "lost", "trial": trial, "reason": reason})
            self._again.append(replace(running.assignment, rungs=self._search.rungs_of(trial)))
        else:
            crash = Crashed("infrastructure", f"{reason}, {self._losses[trial]} times in all")
            self._tell(running, crash, running.cost or {})

    def _take_end(self, running: Running, result: dict[str, Any]) -> None:
        """A trial ended: by itself with its outcome, or by the scheduler at a rung."""
        self._take_result(running, result)
        event = _event_of(result)
        outcome = outcome_from_json(event.get("outcome") or self._stopped_fitness(running))
        self._tell(running, outcome, event.get("cost") or running.cost or {}, stopped="outcome" not in event)

    def _tell(self, running: Running, outcome: Outcome, cost: dict[str, Any], stopped: bool = False) -> None:
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
                stopped=isinstance(outcome, Fitness) and stopped,
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
    """Tells of each worker that was lost under a trial, and how, which a searcher does not hear."""

    def __init__(self, ask_tell: AskTell):
        self._ask_tell = ask_tell

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = _error_of(trial)
        noticed = error.noticed if isinstance(error, Preempted) else bool(getattr(error, "preempted", False))
        self._ask_tell.lost(trial.trial_id, _how_lost(error), noticed)

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


def _error_of(trial: Any) -> BaseException | None:
    """What ended one of Tune's trials; None where it did not leave it."""
    try:
        error: BaseException = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # an error of any library may be in it, and reading it makes that anew
        return None
    return error.cause if isinstance(error, RayTaskError) else error


def _how_lost(error: BaseException | None) -> str:
    if isinstance(error, Preempted):
        return f"{error}, with notice"
    words = str(error or "")
    if isinstance(error, RayActorError) and "its node has died" in words:
        return "its node was lost"
    if error is None or isinstance(error, RayActorError):
        return "its worker was lost"
    return f"its worker failed: {type(error).__name__} {words[-_MOST_LETTERS:]}"


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
