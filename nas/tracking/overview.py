"""A search's page in MLflow, and its candidates as a table: what was searched, where it stands, who waits for a person.

Pure. A number has its interval beside it, or a word that there is none.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.statistics import mean_interval
from nas.tracking import words
from nas.tracking.writes import Event

TOP = 10
_WAITING = 8  # named at most, of each kind
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would take for more than text
COLUMNS = (
    *("trial", "candidate", "purpose", "operator", "family", "island", "parents", "proposer"),
    *("outcome", "detail", "stopped", "seed", "step", "bits_per_byte", "stderr", "held_out_bits_per_byte", "score"),
    *("fresh_seeds", "fresh_mean", "fresh_low", "fresh_high"),
    *("verdict", "verified_gain", "verified_low", "verified_high", "verified_seeds", "verified_p", "verified_against"),
    *("gate_seconds", "train_seconds", "total_seconds", "flops_per_token", "params", "tokens_per_second", "peak_bytes"),
    *("mixer_flops_per_token", "mixer_params", "state_bytes", "growth_flops", "growth_memory", "fingerprint"),
)


@dataclass
class _Row:
    """What is known of one trial."""

    trial: str
    asked: Event = field(default_factory=dict)
    ended: Event = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    verified: Event = field(default_factory=dict)

    @property
    def candidate(self) -> Mapping[str, Any]:
        return words.mapping(self.ended.get("candidate") or self.asked.get("candidate"))

    @property
    def identity(self) -> str:
        return words.clean(self.candidate.get("id"))

    @property
    def purpose(self) -> str:
        return words.clean(self.ended.get("purpose") or self.asked.get("purpose"))

    @property
    def bits(self) -> float | None:
        return words.number(self.outcome.get("bits_per_byte")) if self.outcome.get("kind") == "fitness" else None

    @property
    def step(self) -> int:
        return int(words.number(self.outcome.get("step")) or 0)

    @property
    def seed(self) -> float | None:
        return words.number(words.mapping(self.ended.get("budget")).get("seed"))

    @property
    def rank(self) -> tuple[int, float]:
        """Less is better: one that was trained further outranks one that was stopped."""
        score = words.number(self.outcome.get("score"))
        return (-self.step, -score if score is not None else self.bits or 0.0)


class Overview:
    """One search, as its events tell it."""

    def __init__(self, begun: Event) -> None:
        self._begun = begun
        self._name = words.clean(begun.get("name"))
        self._rows: dict[str, _Row] = {}
        self._steps: set[int] = set()  # at which there was a measurement
        self._guests = 0
        self._decided: set[str] = set()  # held trials
        self._end: Event | None = None

    def take(self, event: Event) -> None:
        kind, trial = event.get("event"), words.clean(event.get("trial"))
        if kind == "ask" and trial:
            self._rows.setdefault(trial, _Row(trial)).asked = _slim(event)
        elif kind == "rung" and (step := words.number(event.get("step"))):
            self._steps.add(int(step))
        elif kind == "trial" and (name := words.clean(event.get("id"))) and (outcome := words.outcome(event)):
            row = self._rows.setdefault(name, _Row(name))
            row.ended, row.outcome = _slim(event), outcome
        elif kind == "guest":
            self._guests += 1
        elif kind == "review" and trial in self._rows:
            self._review(event, self._rows[trial])
        elif kind == "verified" and trial in self._rows:
            self._rows[trial].verified = event
        elif kind == "resume":
            self._end = None
        elif kind == "end":
            self._end = event

    def _review(self, event: Event, row: _Row) -> None:
        if row.outcome.get("kind") == "held" and row.trial not in self._decided:
            self._decided.add(row.trial)
            if event.get("decision") == "accept":
                row.outcome = {"kind": "fitness", **words.mapping(row.outcome.get("fitness"))}

    # the page

    def markdown(self) -> str:
        """The page. MLflow takes so much: the summary of the end, which is a file too, makes room first."""
        sections = [
            f"**State:** {self._state()}",
            *self._waiting(),
            f"**Searched:** {self._searched()}",
            f"**Budget:** {self._budget()}",
            *self._top(),
            "The runs below this one are its candidates; candidates.csv has them as a table. Steps of its metrics "
            "count finished trials.",
        ]
        page = "\n\n".join(sections)
        summary = words.clean(self._end.get("summary")) if self._end else ""
        if not summary:
            return words.cut(page)
        return words.cut(f"{page}\n\n---\n\n{summary}", "\n\n(cut: the whole is in summary.md)")

    def _state(self) -> str:
        ended = [row for row in self._rows.values() if row.ended]
        counts = Counter(_kind(row) for row in ended if row.purpose == "search")
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none yet"
        reason = f"ended ({words.told(self._end.get('reason'), 300)})" if self._end else "running"
        guests = f"; {self._guests} guests of other searches, for parents alone" if self._guests else ""
        return f"{reason}; {len(ended)} trials have ended, of these candidates: {told}{guests}"

    def _waiting(self) -> list[str]:
        """What a person has to decide, and how."""
        rows, name = self._rows.values(), words.told(self._name, 200)
        held = [r.trial for r in rows if r.outcome.get("kind") == "held" and r.trial not in self._decided]
        better = [row.trial for row in rows if row.verified.get("verdict") == "better"]
        sections = []
        if held:
            command = f"nas review {name} accept&#124;refuse TRIAL --by NAME --why TEXT"
            sections.append(f"**Waits for a person:** held: {_names(held)}. {command}")
        if better:
            command = f"nas approve {name} TRIAL --by NAME --why TEXT, or nas reject"
            what = "verified as better (the tag decision says what was decided already)"
            sections.append(f"**Waits for a person:** {what}: {_names(better)}. {command}")
        return sections or ["**Waits for a person:** nothing"]

    def _searched(self) -> str:
        config, corpus = words.mapping(self._begun.get("config")), words.mapping(self._begun.get("corpus"))
        space = words.mapping(config.get("search_space")).get("module")
        proposer, meta = (words.mapping(config.get(part)).get("kind") for part in ("proposer", "meta"))
        size = words.number(words.mapping(corpus.get("text_bytes")).get("train"))
        text = f"{words.told(corpus.get('name'), 200)} ({'' if size is None else f'{size / 1e6:.1f} MB, '}sha256 "
        text += f"{words.escape(words.clean(corpus.get('sha256'))[:12])})"
        parts = [words.escape(space), f"candidates by {words.escape(proposer)}", f"operators by {words.escape(meta)}"]
        told = [part[:200] for part in (parts if space else [])]
        return ", ".join([*told, f"corpus {text}", f"seed {words.told(self._begun.get('seed'), 50)}"])

    def _budget(self) -> str:
        config = words.mapping(self._begun.get("config"))
        search, train, model, caps = (
            words.mapping(config.get(name)) for name in ("search", "train", "model", "budget")
        )
        parts = [
            *_counted(search.get("trials"), "candidates"),
            *_counted(train.get("steps"), "steps each"),
            *([f"measured at steps {', '.join(map(str, sorted(self._steps)[:16]))}"] if self._steps else []),
            *_counted(model.get("layers"), "layers"),
            *_counted(model.get("width"), "wide"),
            *(f"at most {value:g} {words.told(name, 50)}" for name, value in words.numbers(caps).items()),
        ]
        return ", ".join(parts) or "not said"

    def _top(self) -> list[str]:
        best = self._ranked("search")[:TOP]
        baselines = self._ranked("baseline")[:1]
        if not best and not baselines:
            return []
        lines = [
            f"**Best {len(best)} candidates**, and the best baseline",
            "",
            "| trial | candidate | operator | family | bits per byte, one seed | fresh seeds | verified gain |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        fresh = self._fresh()
        for row in [*best, *baselines]:
            candidate = row.candidate
            what = (candidate.get("operator") if row.purpose == "search" else "") or candidate.get("name")
            name, family = (words.escape(words.clean(x)[:60]) for x in (what, row.asked.get("family")))
            stopped = f", stopped at {row.step}" if row.ended.get("stopped") else ""
            cells = (
                words.escape(row.trial[:20]),
                words.escape(row.identity[:12]),
                f"{name} (baseline)" if row.purpose == "baseline" else name,
                family,
                f"{row.bits:.4f}{stopped}",
                _fresh_in_words(fresh.get(row.identity, [])),
                in_words(row.verified) if row.verified else "not verified",
            )
            lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
        return ["\n".join(lines)]

    def _ranked(self, purpose: str) -> list[_Row]:
        rows = (row for row in self._rows.values() if row.purpose == purpose and row.bits is not None)
        return sorted(rows, key=lambda row: row.rank)

    def _fresh(self) -> dict[str, list[float]]:
        """Candidate -> its scores at other seeds than the one by which it was chosen."""
        found: dict[str, list[float]] = {}
        for row in self._rows.values():
            if row.purpose == "confirm" and row.bits is not None and not row.ended.get("stopped"):
                found.setdefault(row.identity, []).append(row.bits)
        return found

    # the table

    def table(self) -> str:
        """All trials that have ended, as CSV under `COLUMNS`: nothing where there is no number."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        fresh = self._fresh()
        for row in self._rows.values():
            if row.ended:
                values = self._values(row, fresh.get(row.identity, []) if row.purpose != "confirm" else [])
                writer.writerow([_cell(values.get(column)) for column in COLUMNS])
        return file.getvalue()

    def _values(self, row: _Row, fresh: Sequence[float]) -> dict[str, Any]:
        candidate, certificate = row.candidate, words.mapping(row.ended.get("certificate"))
        growth = words.mapping(certificate.get("exponents"))
        measured: Mapping[str, Any] = row.outcome if row.outcome.get("kind") == "fitness" else {}
        gain = words.mapping(row.verified.get("gain"))
        interval = mean_interval(fresh) if len(fresh) > 1 else None
        return {
            **{name: measured.get(name) for name in COLUMNS},
            **words.mapping(row.ended.get("cost")),
            "trial": row.trial,
            "candidate": row.identity,
            "purpose": row.purpose,
            "operator": candidate.get("operator"),
            "family": row.asked.get("family"),
            "island": row.asked.get("island"),
            "proposer": candidate.get("proposer"),
            "parents": words.join(candidate.get("parents")),
            "outcome": row.outcome.get("kind"),
            "detail": next((row.outcome[x] for x in ("check", "cause", "tripwire") if row.outcome.get(x)), None),
            "stopped": "true" if row.ended.get("stopped") else "false",
            "seed": row.seed,
            "fresh_seeds": len(fresh) or None,
            "fresh_mean": sum(fresh) / len(fresh) if fresh else None,
            "fresh_low": interval and interval.low,
            "fresh_high": interval and interval.high,
            "verdict": row.verified.get("verdict"),
            "verified_gain": gain.get("mean"),
            "verified_low": gain.get("low"),
            "verified_high": gain.get("high"),
            "verified_seeds": gain.get("count"),
            "verified_p": row.verified.get("p"),
            "verified_against": row.verified.get("against"),
            "mixer_flops_per_token": certificate.get("flops_per_token"),
            "mixer_params": certificate.get("params"),
            "state_bytes": certificate.get("state_bytes"),
            "growth_flops": growth.get("flops"),
            "growth_memory": growth.get("memory"),
            "fingerprint": certificate.get("fingerprint"),
        }


def _slim(event: Event) -> dict[str, Any]:
    """What the page and the table need of an event: not the source, of which one copy is enough."""
    names = ("purpose", "family", "island", "stopped", "budget", "cost", "certificate")
    candidate = words.mapping(event.get("candidate"))
    about = {name: candidate.get(name) for name in ("id", "operator", "name", "parents", "proposer")}
    return {**{name: event.get(name) for name in names}, "candidate": about}


def _fresh_in_words(fresh: Sequence[float]) -> str:
    if len(fresh) < 2:
        return f"{fresh[0]:.4f} at one: no interval" if fresh else "none: no interval"
    found = mean_interval(fresh)
    return f"{found.mean:.4f} &#91;{found.low:.4f}, {found.high:.4f}&#93; (n={found.count})"


def in_words(verified: Event) -> str:
    """A verdict with the gain that it is of, as Markdown: an interval, or a word that there is none."""
    return (
        f"{words.escape(words.clean(verified.get('verdict'))[:40])}: {words.escape(words.gain(verified.get('gain')))}"
    )


def _kind(row: _Row) -> str:
    outcome = row.outcome
    if outcome.get("kind") == "fitness":
        return "stopped early" if row.ended.get("stopped") else "trained to the end"
    detail = next((outcome[name] for name in ("check", "cause", "tripwire") if outcome.get(name)), "")
    return f"{outcome.get('kind')} ({words.escape(words.clean(detail)[:40])})"


def _names(trials: Iterable[str]) -> str:
    names = [words.escape(trial[:20]) for trial in trials]
    more = f" and {len(names) - _WAITING} more" if len(names) > _WAITING else ""
    return ", ".join(names[:_WAITING]) + more


def _counted(value: Any, what: str) -> list[str]:
    number = words.number(value)
    return [] if number is None else [f"{number:g} {what}"]


def _cell(value: Any) -> Any:
    """A number as it is; text in one line that no spreadsheet takes for a formula."""
    number = words.number(value)
    if number is not None:
        return int(number) if number.is_integer() and abs(number) < 2**53 else repr(number)
    text = " ".join(words.clean(None if isinstance(value, float) else value).split())[:300]
    return f"'{text}" if text.startswith(_FORMULA) else text
