"""What a search did, read from its folder alone: its journal, its verification, what persons have decided.

Without the search space, so that a search can be looked at where its space is not installed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from nas.ablation import Change, lineage
from nas.approvals import ACTIONS
from nas.archive import curve_of
from nas.errors import UserError
from nas.journal import Event
from nas.noise import Noise, noise_from_json
from nas.statistics import Interval, mean_interval
from nas.tally import Tally
from nas.terminal import printable
from nas.types import Candidate, Crashed, Fitness, Held, Rejected, Trial
from nas.verify import guests_of, record_holders, trained, trials_of

_NAMED = 5  # trials of one loss


@dataclass(frozen=True)
class Attempt:
    """A finished trial and when it was.

    Attributes:
      place: from 0, in the order in which trials ended.
      began, ended: minutes of the search's own time: from its start, without the time between its sessions.
      gain: bits per byte over its best parent, zero within the noise; None where there was nothing to compare.
      author: the model or proposer that wrote it.
      weights: probability of each operator when it was drawn; empty if it was not.
    """

    trial: Trial
    place: int
    began: float
    ended: float
    gain: float | None
    author: str
    weights: Mapping[str, float]

    @property
    def name(self) -> str:
        """For people: what it is called, or else its operator and id."""
        return name_of(self.trial.candidate)

    @property
    def whole(self) -> bool:
        """Whether it was trained to the end."""
        outcome = self.trial.outcome
        return isinstance(outcome, Fitness) and outcome.step >= self.trial.budget.steps

    @property
    def kind(self) -> str:
        """What became of it, in words."""
        outcome = self.trial.outcome
        if isinstance(outcome, Rejected):
            return f"rejected: {printable(outcome.check)}"
        if isinstance(outcome, Crashed):
            return f"crashed: {printable(outcome.cause)}"
        if isinstance(outcome, Held):
            return f"held: {printable(outcome.tripwire)}"
        if self.trial.purpose == "guest":
            return "trained by another search"
        return "stopped early" if self.trial.stopped else "trained"


@dataclass(frozen=True)
class Account:
    """One search.

    Attributes:
      attempts: finished trials, in the order in which they ended.
      unfinished: how many trials have begun and not ended.
      minutes: that it has worked.
      tally: of its language models.
      spending: (minutes, dollars) of each of their calls.
      notices: what it told a person, in order.
      end: its last event of that kind; empty while it runs, or if it was killed.
      verification: as `nas verify` has written it; empty if it has not.
      ablations: changes of the winner's lineage with their effect; from the same.
      decisions: of persons on its candidates, and on what it held, in words.
      decided: held trials that a person has decided on.
      guests: what other searches have trained, and this one took in as parents.
    """

    name: str
    config: Mapping[str, Any]
    corpus: Mapping[str, Any]
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]
    attempts: Sequence[Attempt]
    unfinished: int
    minutes: float
    noise: Noise
    fidelity: Mapping[str, Any]
    tally: Tally
    spending: Sequence[tuple[float, float]] = ()
    notices: Sequence[str] = ()
    end: Event = field(default_factory=dict)
    verification: Mapping[str, Any] = field(default_factory=dict)
    decisions: Sequence[str] = ()
    decided: frozenset[str] = frozenset()
    guests: Sequence[Attempt] = ()

    @cached_property
    def trials(self) -> list[Trial]:
        return [attempt.trial for attempt in self.attempts]

    @cached_property
    def proposals(self) -> list[Attempt]:
        """What was proposed, without copies of what was tried before."""
        return [one for one in self.attempts if one.trial.purpose == "search" and not is_copy(one.trial)]

    @cached_property
    def baselines(self) -> list[Trial]:
        """Trained to the end, best first."""
        return trained(self.trials, "baseline")

    @cached_property
    def best(self) -> Trial | None:
        """Verification's winner; else the best candidate that was trained to the end, at the search's seed."""
        ranked = trained(self.trials, "search")
        winner = {verdict["name"]: verdict["trial"] for verdict in self.verification.get("verdicts", ())}.get(
            self.verification.get("winner")
        )
        return next((trial for trial in ranked if trial.id == winner), ranked[0] if ranked else None)

    @cached_property
    def path(self) -> list[Change]:
        """From the baselines, or a guest, to the best, the first change first."""
        known = [*self.trials, *(guest.trial for guest in self.guests)]
        return lineage(self.best.candidate, known)[::-1] if self.best else []

    @cached_property
    def operators(self) -> list[str]:
        """In the order in which they were first seen."""
        drawn = [name for attempt in self.attempts for name in attempt.weights]
        used = [attempt.trial.candidate.operator for attempt in self.proposals]
        return list(dict.fromkeys(map(printable, [*drawn, *used])))

    @cached_property
    def waiting(self) -> list[Trial]:
        """Held, and not decided on."""
        return [trial for trial in self.trials if isinstance(trial.outcome, Held) and trial.id not in self.decided]

    @property
    def steps(self) -> int:
        """Optimizer steps of the full budget."""
        return int(self.config["train"]["steps"])

    @property
    def device_minutes(self) -> float:
        """Of training."""
        return sum(trial.cost.train_seconds for trial in self.trials) / 60

    @property
    def setup(self) -> dict[str, str]:
        """What every trial was trained with."""
        model, train, search = (self.config[part] for part in ("model", "train", "search"))
        tokens = train["steps"] * train["batch"] * train["time"]
        rates = ", ".join(f"{train['learning_rate'] * multiple:g}" for multiple in train.get("grid", [1.0]))
        return {
            "one training": f"{train['steps']} steps of {train['batch']} x {train['time']} tokens: {tokens:,} tokens",
            "model": f"width {model['width']}, layers {model['layers']}, heads {model['heads']}",
            "learning rate": f"best at the first rung of {rates}; warm-up {train['warmup']:g} of the steps",
            "selection": f"training seed {train['seed']}, validation text",
            "fresh seeds": f"{search.get('confirm_seeds', 0)}, of the best candidate and the best baseline at the end",
            "machine": ", ".join(f"{name} {printable(str(value))}" for name, value in self.machine.items()),
        }

    def step_of(self, change: Change) -> tuple[float, int] | None:
        """(bits per byte gained over the parent, the step at which both were measured), at the search's seed."""
        tried = [one.trial for one in (*self.guests, *reversed(self.attempts)) if one.trial.purpose != "confirm"]
        known = {trial.candidate.id: trial for trial in tried}
        curves = [curve_of(known[each.id]) for each in (change.parent, change.child) if each.id in known]
        shared = set.intersection(*map(set, curves)) if len(curves) == 2 else set()
        return (curves[0][max(shared)] - curves[1][max(shared)], max(shared)) if shared else None

    def noise_of_difference(self, step: int) -> float | None:
        """Standard deviation of a difference of two architectures at one seed: a smaller gain counts as none."""
        estimate = self.noise.difference.get(step)
        return estimate.deviation if estimate else None

    @property
    def stopped(self) -> list[Attempt]:
        """New candidates that the scheduler stopped."""
        return [one for one in self.proposals if one.trial.stopped and isinstance(one.trial.outcome, Fitness)]

    @property
    def spread(self) -> float | None:
        """Standard deviation of bits per byte over training seeds after the full budget; None if it is not known."""
        estimate = self.noise.score.get(self.steps)
        return estimate.deviation if estimate else None

    def by_seed(self, candidate: Candidate) -> dict[int, float]:
        """Training seed -> bits per byte after the full budget."""
        return {
            one.trial.budget.seed: one.trial.outcome.bits_per_byte
            for one in self.attempts
            if one.trial.candidate.id == candidate.id and one.whole and isinstance(one.trial.outcome, Fitness)
        }

    def dollars(self, minutes: float) -> float:
        """What language models had cost by then."""
        return sum(dollars for when, dollars in self.spending if when <= minutes)

    def gain_on_fresh_seeds(self) -> Interval | None:
        """The best candidate's over the best baseline, paired over seeds by which neither was chosen."""
        if self.best is None or not self.baselines:
            return None
        ours, theirs = self.by_seed(self.best.candidate), self.by_seed(self.baselines[0].candidate)
        fresh = sorted((ours.keys() & theirs.keys()) - {self.best.budget.seed})
        return mean_interval([theirs[seed] - ours[seed] for seed in fresh]) if fresh else None

    def records(self) -> list[tuple[int, Attempt]]:
        """(candidates tried by then, attempt) of each that was the best so far."""
        by_trial = {attempt.trial.id: attempt for attempt in self.attempts}
        return [(tried, by_trial[trial.id]) for tried, trial in record_holders(self.trials)]


def account_of(name: str, events: Sequence[Event], folder: Path, trail: Iterable[Event] = ()) -> Account:
    """The account of a search.

    Args:
      events: of its journal, `search` first.
      folder: where its verification is, if it has one.
      trail: of approvals (`nas.approvals`).

    Raises:
      UserError: if the journal or the verification is damaged, with one sentence.
    """
    begun = events[0]
    try:
        clock = _Clock(events)
        tally = Tally()
        for event in events:
            tally.take(event)
        noise = [event for event in events if event["event"] == "noise"]
        ended = [event for event in events if event["event"] == "trial"]
        asked = [event for event in events if event["event"] == "ask"]
        return Account(
            name=name,
            config=begun["config"],
            corpus=begun["corpus"],
            versions=begun.get("versions", {}),
            machine=begun.get("machine") or {},
            attempts=_attempts(events, clock, tally),
            guests=_guests(events, clock),
            unfinished=len({event["trial"] for event in asked} - {event["id"] for event in ended}),
            minutes=clock.minutes(events[-1]),
            noise=noise_from_json(noise[-1]) if noise else Noise(),
            fidelity=ended[-1].get("fidelity", {}) if ended else {},
            tally=tally,
            spending=[
                (clock.minutes(event), float(event.get("dollars") or 0.0))
                for event in events
                if event["event"] in ("completion", "call_failed")
            ],
            notices=[*_notices(events)],
            end=next((event for event in reversed(events) if event["event"] in ("end", "resume")), {}),
            verification=_verification(folder),
            decisions=[*_reviews(events), *_approvals(name, trail)],
            decided=frozenset(event["trial"] for event in events if event["event"] == "review"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the journal of {name} is damaged: {type(error).__name__} {error}") from error


class _Clock:
    """Minutes of a search's own time, by its journal: what lies between two of its sessions is not counted.

    A session may have been on another machine, and any clock can be set back meanwhile: this one never goes back.
    """

    def __init__(self, events: Sequence[Event]):
        self._events, seconds = events, 0.0
        self._minutes = {id(events[0]): 0.0}
        for before, event in pairwise(events):
            if event["event"] not in ("resume", "verified", "ablation", "review"):
                seconds += max(0.0, event["time"] - before["time"])
            self._minutes[id(event)] = seconds / 60

    def minutes(self, event: Event) -> float:
        """At one of the events that it was made of."""
        return self._minutes[id(event)]


def _attempts(events: Sequence[Event], clock: _Clock, tally: Tally) -> list[Attempt]:
    asks = {event["trial"]: event for event in events if event["event"] == "ask"}
    ended = {event["id"]: event for event in events if event["event"] == "trial"}
    return [
        Attempt(
            trial,
            place,
            clock.minutes(asks.get(trial.id, ended[trial.id])),
            clock.minutes(ended[trial.id]),
            ended[trial.id].get("gain"),
            printable(tally.author(asks[trial.id])) if trial.id in asks else "",
            {printable(name): weight for name, weight in asks.get(trial.id, {}).get("weights", {}).items()},
        )
        for place, trial in enumerate(trials_of(events))
    ]


def _guests(events: Sequence[Event], clock: _Clock) -> list[Attempt]:
    """Each in the place of the trial that had ended last."""
    places = accumulate((event["event"] == "trial" for event in events), initial=-1)
    told = [(place, event) for place, event in zip(places, events, strict=False) if event["event"] == "guest"]
    return [
        Attempt(trial, place, clock.minutes(event), clock.minutes(event), None, "", {})
        for (place, event), trial in zip(told, guests_of(events), strict=True)
    ]


def _verification(folder: Path) -> Mapping[str, Any]:
    path = folder / "verification.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): nas verify {folder} writes it again") from error
    if not isinstance(found, dict) or not {"verdicts", "ablations", "winner"} <= found.keys():
        raise UserError(f"{path} is no verification: nas verify {folder} writes it again")
    return found


def _notices(events: Iterable[Event]) -> Iterator[str]:
    """What was told as it came, and, in one line for each kind of loss, which trials went on with another worker."""
    lost: dict[str, list[str]] = {}
    for event in events:
        if event["event"] == "notice":
            yield str(event["reason"])
        elif event["event"] == "lost":
            lost.setdefault(str(event["reason"]), []).append(str(event["trial"]))
    for reason, trials in lost.items():
        yield f"{reason}, {len(trials)} times ({', '.join(trials[:_NAMED])}{' ...' if len(trials) > _NAMED else ''})"


def _reviews(events: Iterable[Event]) -> list[str]:
    words = {"accept": "accepted", "refuse": "refused"}
    return [
        f"{event['trial']} {words.get(event['decision'], event['decision'])} by {event['by']}: {event['why']}"
        for event in events
        if event["event"] == "review"
    ]


def _approvals(name: str, trail: Iterable[Event]) -> list[str]:
    return [
        f"{event['trial']} {ACTIONS[event['event']]} by {event['by']} at {event['when']}: {event['why']}"
        for event in trail
        if event["search"] == name
    ]


def is_copy(trial: Trial) -> bool:
    """Whether it was refused as the same program as an earlier one, before it cost anything."""
    return isinstance(trial.outcome, Rejected) and trial.outcome.check == "novelty" and not trial.cost.total_seconds


def name_of(candidate: Candidate) -> str:
    """For people: what it is called, or else its operator and id."""
    return printable(candidate.name) or f"{printable(candidate.operator)} {candidate.id}"
