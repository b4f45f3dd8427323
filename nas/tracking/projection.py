"""What each event adds to MLflow. Pure: the same events give the same writes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from nas.tally import Tally
from nas.tracking import words
from nas.tracking.overview import Overview
from nas.tracking.story import DIFF_CHARACTERS, Story
from nas.tracking.traces import Traces
from nas.tracking.writes import STATUS, Event, Search, TraceWrite, Write

# What a run has if it was trained, whoever it is: so that MLflow draws all of them beside each other.
CORE = (
    *("bits_per_byte", "score", "stderr", "steps_done", "tokens_per_second", "peak_bytes", "flops_per_token", "params"),
    *("gate_seconds", "train_seconds", "total_seconds"),
)
_SHAPE = (("train", "time"), ("model", "width"))
_REFRESH = 0.1  # of the trials so far, after which the search's page is written anew


class Projection:
    """From the events so far to the next writes. The same events give the same writes, times included."""

    def __init__(self) -> None:
        self._handlers: dict[Any, Callable[[Event], list[Write]]] = {
            "ask": self._ask,
            "rung": self._rung,
            "trial": self._trial,
            "noise": self._noise,
            "guest": self._guest,
            "notice": self._notice,
            "lost": self._lost,
            "review": self._review,
            "verified": self._verified,
            "draw": self._draw,
            "analysis": self._analysis,
            "opinion": self._opinion,
            "resume": self._resume,
            "end": self._end,
        }
        self._search: Search | None = None
        self._time_ms = 0

    def writes(self, event: Event) -> list[Write | TraceWrite]:
        """What `event` adds; nothing for an event that is not known here."""
        kind = event.get("event")
        time = words.number(event.get("time"))
        self._time_ms = self._time_ms if time is None else int(1000 * time)
        if kind == "search":
            return [self._begin(event)]
        if self._search is None or not isinstance(kind, str):
            return []
        self._tally.take(event)
        self._overview.take(event)
        handler = self._handlers.get(kind)
        # The runs first: a trace that has ended is linked to one.
        return [*(handler(event) if handler else []), *self._traces.writes(event)]

    def _begin(self, event: Event) -> Write:
        self._search = words.search_of(event)
        self._traces = Traces(self._search)
        self._tally = Tally()
        self._overview = Overview(event)
        self._shown = 0  # trials that had ended when its page was last written
        self._seconds = {"train_seconds": 0.0, "total_seconds": 0.0}  # of all trials
        self._gains: dict[str, dict[str, float]] = {}  # trial -> mean, low and high of its gain
        self._stateless = _stateless(words.mapping(event.get("config")))
        self._certificates: dict[str, Mapping[str, Any]] = {}  # of the candidates: a confirmation has none of its own
        self._first: dict[str, str] = {}  # candidate -> the trial that tried it first
        self._guests = 0  # that other searches have trained
        self._sources: dict[str, str] = {}
        self._stories: dict[str, Story] = {}  # of the trials
        self._drawn: dict[str, Event] = {}  # work -> the event by which it was drawn
        self._opinions: dict[str, Event] = {}  # work -> the judge's
        self._trials: dict[str, str] = {}  # work -> the trial that came of it
        self._open: dict[str, None] = {}  # asked and not finished; ordered, so that the same events write the same
        self._killed: set[str] = set()
        self._rung_times: dict[str, dict[int, int]] = {}
        self._counts = {"trained": 0, "rejected": 0, "crashed": 0, "held": 0}
        # Held trials that no person has decided on, and what is to be written if they are accepted.
        self._waiting: dict[str, tuple[Event, Write]] = {}
        self._best: float | None = None
        self._weights: dict[str, float] = {}
        self._measurement: dict[str, float] = {}  # of the noise, and of what was lost
        self._front: set[str] = set()
        corpus = words.mapping(event.get("corpus"))
        versions = {f"version.{name}": value for name, value in words.mapping(event.get("versions")).items()}
        config = words.flatten(words.mapping(event.get("config")))
        return self._write(
            run_name=self._search.name,
            params={key: value[: words.PARAM_CHARACTERS] for key, value in config.items()},
            tags=words.tags(
                {
                    "seed": event.get("seed"),
                    "corpus": corpus.get("name"),
                    "corpus.sha256": corpus.get("sha256"),
                    **versions,
                    "mlflow.note.content": self._overview.markdown(),
                }
            ),
            artifacts={"search.json": words.pretty_json(event)},
        )

    def _ask(self, event: Event) -> list[Write]:
        trial = words.clean(event.get("trial"))
        if not trial:
            return []
        self._weights = words.numbers(event.get("weights")) or self._weights
        self._open[trial] = None
        self._killed.discard(trial)
        candidate, work = words.mapping(event.get("candidate")), words.clean(event.get("work"))
        self._first.setdefault(words.clean(candidate.get("id")), trial)
        story = self._stories[trial] = Story(_told(candidate), words.clean(event.get("family")))
        story.island = _island(event)
        if work:
            self._trials[work] = trial
            story.drawn, story.opinion = self._drawn.get(work, {"work": work}), self._opinions.get(work, {})
        story.numbers = words.numbers(
            {"probability": event.get("probability"), "predicted_gain": candidate.get("predicted_gain")}
        )
        return [
            self._candidate_write(
                trial,
                candidate,
                tags={"outcome": "running", "purpose": event.get("purpose")},
                status="RUNNING",
            )
        ]

    def _guest(self, event: Event) -> list[Write]:
        """What another search has trained has its run there: here it is known as a parent, and counted."""
        candidate = words.mapping(event.get("candidate"))
        identity, source = words.clean(candidate.get("id")), candidate.get("source")
        self._guests += 1
        self._first.setdefault(identity, words.clean(event.get("id")))
        if isinstance(source, str):
            self._sources.setdefault(identity, source)
        return []

    def _draw(self, event: Event) -> list[Write]:
        if work := words.clean(event.get("work")):
            self._drawn[work] = event
        return []

    def _analysis(self, event: Event) -> list[Write]:
        """What was learned from a trial that has ended."""
        trial = words.clean(event.get("trial"))
        if trial not in self._stories:
            return []
        self._stories[trial].analysis = event
        return [self._amendment(trial)]

    def _opinion(self, event: Event) -> list[Write]:
        """The judge's, which may come before the candidate has a run, while it is trained, or after."""
        work = words.clean(event.get("work"))
        self._opinions[work] = event
        trial = self._trials.get(work)
        if trial is None:
            return []
        self._stories[trial].opinion = event
        return [self._amendment(trial)]

    def _amendment(self, trial: str) -> Write:
        return self._write(trial=trial, tags=self._page(trial), amends=True)

    def _page(self, trial: str) -> dict[str, str]:
        """The tags that say what is known of a candidate, its page among them."""
        story = self._stories.get(trial, Story())
        return words.tags({**story.tags(), "mlflow.note.content": story.markdown()})

    def _rung(self, event: Event) -> list[Write]:
        trial, step = words.clean(event.get("trial")), words.number(event.get("step"))
        if not trial or step is None:
            return []
        times = self._rung_times.setdefault(trial, {})
        if int(step) in times:  # a trial that is run again after a crash reports its rungs again
            return []
        times[int(step)] = self._time_ms
        status = "RUNNING" if trial in self._killed else None
        self._killed.discard(trial)
        bits = words.number(event.get("bits_per_byte"))
        # Not yet "bits_per_byte": a trial that crashes later must not stand among the scores.
        metrics = () if bits is None else (("rung_bits_per_byte", bits, self._time_ms, int(step)),)
        if bits is not None and trial in self._stories:
            self._stories[trial].rungs[int(step)] = bits
        return [self._write(trial=trial, tags={"rung": str(int(step))}, metrics=metrics, status=status)]

    def _trial(self, event: Event) -> list[Write]:
        trial = words.clean(event.get("id"))
        outcome = words.outcome(event)
        if not trial or not outcome:
            return []
        kind = outcome["kind"]
        self._open.pop(trial, None)
        self._killed.discard(trial)
        self._count("trained" if kind == "fitness" else kind, event, outcome)
        if kind == "held":
            fitness = {"kind": "fitness", **words.mapping(outcome.get("fitness"))}
            accepted = self._finished_candidate(trial, {**event, "outcome": fitness}, fitness)
            self._waiting[trial] = (event, replace(accepted, amends=True))
        cost = words.numbers(event.get("cost"))
        for name in self._seconds:
            self._seconds[name] += max(cost.get(name, 0.0), 0.0)
        writes = [self._finished_candidate(trial, event, outcome), self._progress(event)]
        if kind == "held":
            writes.append(self._waiting_count())
        if (finished := sum(self._counts.values())) >= self._shown + max(1, int(_REFRESH * self._shown)):
            self._shown = finished
            writes.append(self._search_page())
        self._rung_times.pop(trial, None)
        return writes

    def _search_page(self) -> Write:
        """What the search is by now: its page, and its candidates as a table."""
        page = words.tags({"mlflow.note.content": self._overview.markdown()})
        return self._write(tags=page, artifacts={"candidates.csv": self._overview.table()})

    def _count(self, kind: str, event: Event, outcome: Mapping[str, Any]) -> None:
        self._counts[kind] += 1
        bits = words.number(outcome.get("bits_per_byte")) if kind == "trained" else None
        # A confirmation is of a candidate that was counted already, at a fresh seed.
        if bits is not None and event.get("purpose") != "confirm":
            self._best = bits if self._best is None else min(self._best, bits)

    def _noise(self, event: Event) -> list[Write]:
        """How far seeds differ: among the search's metrics from the next finished trial on."""
        for kind in ("score", "difference"):
            for step, estimate in words.mapping(event.get(kind)).items():
                for name in ("deviation", "freedom"):
                    value = words.number(words.mapping(estimate).get(name))
                    if value is not None:
                        self._measurement[f"noise.{kind}.{name}.step_{step}"] = value
        return [self._write(tags=words.tags({"noise": event.get("source")}))]

    def _notice(self, event: Event) -> list[Write]:
        return [self._write(tags=words.tags({f"notice.{words.clean(event.get('tripwire'))}": event.get("reason")}))]

    def _lost(self, event: Event) -> list[Write]:
        """A worker was lost: counted among the search's metrics from the next finished trial on."""
        self._measurement["workers_lost"] = self._measurement.get("workers_lost", 0) + 1
        return []

    def _review(self, event: Event) -> list[Write]:
        """A person has decided on a held trial: accepted, its numbers become a score's."""
        trial = words.clean(event.get("trial"))
        if trial not in self._waiting:
            return []
        held, accepted = self._waiting.pop(trial)
        decision = words.tags(
            {"review": event.get("decision"), "review.by": event.get("by"), "review.why": event.get("why")}
        )
        if event.get("decision") != "accept":
            return [self._write(trial=trial, tags=decision, amends=True), self._waiting_count(), self._search_page()]
        fitness = words.mapping(words.mapping(held.get("outcome")).get("fitness"))
        self._counts["held"] -= 1
        self._count("trained", held, fitness)
        self._stories[trial].outcome = _ended(held, {"kind": "fitness", **fitness})
        return [
            replace(accepted, tags={**accepted.tags, **self._page(trial), **decision}),
            self._waiting_count(),
            replace(self._progress({}), milestone=None),
            self._search_page(),
        ]

    def _verified(self, event: Event) -> list[Write]:
        """A verdict, which may be given anew with more seeds: the last one stands."""
        trial, gain = words.clean(event.get("trial")), words.mapping(event.get("gain"))
        if trial not in self._stories:
            return []
        values = {"gain": gain.get("mean"), "low": gain.get("low"), "high": gain.get("high"), "p": event.get("p")}
        numbers = words.numbers(values)
        metrics = [(f"verified.{name}", value, self._time_ms, 0) for name, value in numbers.items()]
        self._stories[trial].verified = event
        self._gains[trial] = numbers
        told = {"verdict": event.get("verdict"), "verified.against": event.get("against")}
        tags = words.tags({**told, "verified.gain": words.gain(gain)})
        return [
            self._write(trial=trial, tags={**tags, **self._page(trial)}, metrics=tuple(metrics), amends=True),
            replace(self._search_page(), metrics=self._best_verified()),
        ]

    def _best_verified(self) -> tuple[tuple[str, float, int, int], ...]:
        """The largest gain that was verified, and its interval, as the search's metrics."""
        known = [found for found in self._gains.values() if "gain" in found]
        best = max(known, key=_gain) if known else {}
        names = {"gain": "best_verified_gain", "low": "best_verified_gain.low", "high": "best_verified_gain.high"}
        finished = sum(self._counts.values())
        return tuple((names[name], value, self._time_ms, finished) for name, value in best.items() if name in names)

    def _waiting_count(self) -> Write:
        return self._write(tags=words.tags({"waiting": len(self._waiting)}))

    def _finished_candidate(self, trial: str, event: Event, outcome: Mapping[str, Any]) -> Write:
        kind = outcome["kind"]
        candidate, certificate = words.mapping(event.get("candidate")), words.mapping(event.get("certificate"))
        budget, cost = words.mapping(event.get("budget")), words.mapping(event.get("cost"))
        rung_times = self._rung_times.get(trial, {})
        identity = words.clean(candidate.get("id"))
        if certificate:
            self._certificates[identity] = certificate
        passed = certificate or self._certificates.get(identity, {})
        values = {**cost, "gain": event.get("gain"), **self._certified(passed)}
        curve: dict[int, float] = {}
        fitness = words.mapping(outcome.get("fitness")) if kind == "held" else {}
        last = int(words.number({**outcome, **fitness}.get("step")) or 0)
        if kind == "fitness":
            values |= {**words.measured(outcome), "steps_done": last}
            for rung in [
                *words.mappings(event.get("rungs")),
                {"step": last, "bits_per_byte": outcome.get("bits_per_byte")},
            ]:
                step, bits = words.number(rung.get("step")), words.number(rung.get("bits_per_byte"))
                if step is not None and bits is not None:
                    curve[int(step)] = bits
        metrics = [("bits_per_byte", bits, rung_times.get(step, self._time_ms), step) for step, bits in curve.items()]
        metrics += [(words.key(name), value, self._time_ms, last) for name, value in words.numbers(values).items()]
        if kind == "held":  # under names of their own: nothing that ranks runs finds them
            seen = words.numbers({**words.measured(fitness), "bits_per_byte": fitness.get("bits_per_byte")})
            metrics += [(f"held/{words.key(name)}", value, self._time_ms, last) for name, value in seen.items()]
        # Last: MLflow compares runs by the first of their metrics, until a person chooses another.
        asked = self._stories.get(trial, Story()).numbers
        metrics += [(name, value, self._time_ms, 0) for name, value in asked.items()]
        artifacts = {"certificate.json": words.pretty_json(certificate)} if certificate else {}
        if outcome.get("reason"):
            artifacts["reason.txt"] = words.clean(outcome["reason"])
        story = self._stories.setdefault(trial, Story(_told(candidate)))
        story.outcome, story.certificate = _ended(event, outcome), certificate
        story.rungs |= curve
        files = words.mapping(event.get("files"))
        story.checkpoint = words.clean(files.get("checkpoint"))
        if files.get("log"):
            artifacts["log.txt"] = words.clean(files["log"])
        return self._candidate_write(
            trial,
            candidate,
            tags={
                "outcome": kind,
                "purpose": event.get("purpose"),
                "corpus.sha256": event.get("corpus"),
                "stopped": "true" if event.get("stopped") else "false",
                "rejected.check": outcome.get("check") if kind == "rejected" else None,
                "crashed.cause": outcome.get("cause") if kind == "crashed" else None,
                "tripwire": outcome.get("tripwire") if kind == "held" else None,
                "certificate": "passed" if passed else outcome.get("check") if kind == "rejected" else None,
                "rung": last or max(story.rungs, default=None),
                "checkpoint": story.checkpoint or None,
            },
            params={
                "operator": candidate.get("operator"),
                "parents": words.join(candidate.get("parents")),
                "proposer": candidate.get("proposer"),
                "seed": budget.get("seed"),
                "steps": budget.get("steps"),
                **({"family": story.family} if story.family else {}),
                **({"island": story.island} if story.island not in ("", "all") else {}),  # numbers alone
                **_rate(outcome),
            },
            metrics=metrics,
            artifacts=artifacts,
            status=STATUS[kind],
        )

    def _progress(self, event: Event) -> Write:
        """The search's own metrics after one more finished trial."""
        finished, spent = sum(self._counts.values()), self._seconds
        credit = words.mapping(event.get("credit"))
        values = {
            **self._counts,
            "in_flight": len(self._open),
            "proposals_ahead": len(self._tally.open),
            "training_share": spent["train_seconds"] / spent["total_seconds"] if spent["total_seconds"] else None,
            "cost.device_seconds": spent["train_seconds"],
            "cost.dollars": self._tally.dollars,
            "best_bits_per_byte": self._best,
            "guests": self._guests or None,
            **self._llm(),
            **self._measurement,
            **_fidelity(event),
            **{f"weight.{name}": weight for name, weight in self._weights.items()},
            **{f"reward.{name}": words.mapping(arm).get("reward") for name, arm in credit.items()},
        }
        metrics = tuple(
            (words.key(name), value, self._time_ms, finished) for name, value in words.numbers(values).items()
        )
        return self._write(metrics=metrics, milestone=finished)

    def _llm(self) -> dict[str, float]:
        """What the language models did so far; nothing where there are none."""
        tally = self._tally
        if not tally:
            return {}
        counts = {"calls": tally.calls, "failed": tally.failed.total(), "unusable": tally.unusable.total()}
        values = {**counts, "tokens": tally.tokens, "dollars": tally.dollars}
        return {f"llm.{name}": float(value) for name, value in values.items()}

    def _resume(self, event: Event) -> list[Write]:
        return [self._write(status="RUNNING"), self._search_page()]

    def _end(self, event: Event) -> list[Write]:
        self._killed = set(self._open)
        summary = words.clean(event.get("summary"))
        front = words.mapping(event.get("pareto"))
        on_it, finished = set(_texts(front.get("trials"))), sum(self._counts.values())
        moved = sorted(on_it ^ self._front)  # of an earlier end too: a resumed search may have another front
        self._front = on_it
        hypervolumes = {"hypervolume": front.get("hypervolume"), "hypervolume.baselines": front.get("of_baselines")}
        metrics = tuple((name, x, self._time_ms, finished) for name, x in words.numbers(hypervolumes).items())
        tags = words.tags({"end.reason": event.get("reason"), "best": event.get("best")})
        page = self._search_page()
        artifacts = {**page.artifacts, **({"summary.md": summary} if summary else {})}
        return [
            *(self._write(trial=trial, status="KILLED") for trial in self._open),
            *(self._write(trial=t, tags={"pareto": "true" if t in on_it else "false"}, amends=True) for t in moved),
            self._write(tags={**tags, **page.tags}, metrics=metrics, artifacts=artifacts, status="FINISHED"),
        ]

    def _candidate_write(
        self,
        trial: str,
        candidate: Mapping[str, Any],
        *,
        tags: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        metrics: Iterable[tuple[str, float, int, int]] = (),
        artifacts: Mapping[str, str] | None = None,
        status: str,
    ) -> Write:
        identity, operator = words.clean(candidate.get("id")), words.clean(candidate.get("operator"))
        source, parents = candidate.get("source"), candidate.get("parents") or ()
        code: dict[str, str] = {}
        if isinstance(source, str):
            code["candidate.py"] = words.encodable(source)
            self._sources[identity] = source
            first = words.clean(parents[0]) if isinstance(parents, list | tuple) and parents else None
            if first in self._sources:
                code["parent.diff"] = words.diff(self._sources[first], source, first, identity)
        if story := self._stories.get(trial):
            story.parent = self._parent(parents)
            story.diff = words.clean(code.get("parent.diff"))[:DIFF_CHARACTERS]
        return self._write(
            trial=trial,
            run_name=" ".join(filter(None, [trial, operator, words.clean(candidate.get("name")), identity]))[:200],
            tags=words.tags(
                {
                    "operator": operator,
                    "parents": words.join(parents),
                    **self._place(trial),
                    "proposer": candidate.get("proposer"),
                    "candidate": identity,
                    **tags,
                }
            )
            | self._page(trial),
            params={name: words.clean(value)[: words.PARAM_CHARACTERS] for name, value in (params or {}).items()},
            metrics=tuple(metrics),
            artifacts={**code, **(artifacts or {})},
            status=status,
        )

    def _parent(self, parents: Any) -> tuple[str, str]:
        """(id, trial) of the first parent, as far as it is known."""
        first = words.clean(parents[0]) if isinstance(parents, list | tuple) and parents else ""
        return first, self._first.get(first, "")

    def _place(self, trial: str) -> dict[str, str | None]:
        """The tags that say where a candidate comes from."""
        story = self._stories.get(trial, Story())
        parent, its_trial = story.parent
        return {
            "family": story.family or None,
            "island": story.island or None,
            "parent": parent or None,
            "parent.trial": its_trial or None,
        }

    def _certified(self, certificate: Mapping[str, Any]) -> dict[str, Any]:
        """The certificate's numbers, of one mixer. What has no state of a fixed size has to keep all its inputs."""
        if not certificate:
            return {}
        state, growth = certificate.get("state_bytes"), words.mapping(certificate.get("exponents"))
        return {
            "state_bytes": self._stateless if state is None else state,
            "mixer.flops_per_token": certificate.get("flops_per_token"),
            "mixer.params": certificate.get("params"),
            **{f"growth.{name}": value for name, value in growth.items()},
        }

    def _write(self, **fields: Any) -> Write:
        assert self._search is not None
        return Write(self._search, self._time_ms, **fields)


def _fidelity(event: Event) -> dict[str, Any]:
    """How well each early rung ranks as the last one does, and what a gain there counts."""
    return {
        f"fidelity.{name}.step_{step}": value
        for step, found in words.mapping(event.get("fidelity")).items()
        for name, value in words.mapping(found).items()
    }


def _texts(values: Any) -> list[str]:
    return [words.clean(value) for value in values] if isinstance(values, list | tuple) else []


def _told(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """What a page tells of a candidate: not its source, of which one copy is enough."""
    return {name: candidate.get(name) for name in ("operator", "motivation", "predicted_gain")}


def _ended(event: Event, outcome: Mapping[str, Any]) -> dict[str, Any]:
    return {**outcome, "stopped": event.get("stopped"), "gain": event.get("gain")}


def _island(event: Event) -> str:
    """Where an asked candidate lands: a baseline on all of them; empty where the journal does not say."""
    if "island" in event and event.get("purpose") == "baseline":
        return "all"
    number = words.number(event.get("island"))
    return "" if number is None else f"{number:g}"


def _rate(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The learning rate that was the best of the grid, where there was one."""
    rate = words.number(outcome.get("learning_rate"))
    return {} if rate is None or outcome.get("kind") != "fitness" else {"learning_rate": rate}


def _stateless(config: Mapping[str, Any]) -> float | None:
    """As `nas.scores.stateless_bytes`, of settings as the journal has them."""
    time, width = (words.number(words.mapping(config.get(part)).get(name)) for part, name in _SHAPE)
    return None if time is None or width is None else 4 * time * width


def _gain(found: Mapping[str, float]) -> float:
    return found["gain"]
