"""A candidate's page in MLflow: what was tried, expected, measured and learned. Others' text is shown as text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.tracking import words
from nas.tracking.writes import Event

DIFF_CHARACTERS = 8_000  # more never fits, and then it is said that it was cut
_ROOM = 7_700  # of words.TAG_CHARACTERS: what stands between sections counts too
_LESSONS = 5  # shown at most, each cut
_LESSON_CHARACTERS = 180
_TEXT_CHARACTERS = 700
_RUNGS = 12
_LEAST = 700  # of a section that is cut: with less room it is only named


@dataclass
class Story:
    """What is known of a candidate so far.

    Attributes:
      candidate: its operator, motivation and prediction are told.
      family: the kind of its state transition; empty where the journal does not say.
      island: where it lands, "all" for a baseline; empty where the journal does not say.
      parent: (id, trial) of its first parent.
      diff: from there to it; empty where the parent's source is not known.
      numbers: what was known before there was an outcome: how probable it was, and its prediction.
      rungs: step -> bits per byte.
      outcome: with `stopped` and `gain`; empty until there is one.
      drawn: the event by which its proposal was drawn, as `analysis`, `opinion` and `verified` are the events about it.
      checkpoint: where its parameters are; empty where there are none.
    """

    candidate: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    island: str = ""
    parent: tuple[str, str] = ("", "")
    diff: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    drawn: Event = field(default_factory=dict)
    analysis: Event = field(default_factory=dict)
    opinion: Event = field(default_factory=dict)
    verified: Event = field(default_factory=dict)
    checkpoint: str = ""

    def markdown(self) -> str:
        """The page. MLflow takes so much, and what is a file too makes room first: certificate, reason, diff."""
        told = [
            *_outcome_in_words(self.outcome),
            *self._verdict(),
            *self._motivation(),
            *self._origin(),
            *self._prediction(),
        ]
        more = [*self._curve(), *self._analysis(), *self._opinion(), *self._shown(), *self._files()]
        room = _ROOM - sum(len(section) + 2 for section in [*told, *more])
        reason = _reason(words.clean(self.outcome.get("reason")), min(room - 600, 2_500))
        room -= sum(map(len, reason))
        table = _table(self.certificate) if self.certificate else ""
        change = f"**Change** from {words.told(self.parent[0], 20)}"
        if table and len(table) + min(len(self.diff), _LEAST) + 200 > room:
            table = "**Certificate:** passed; the whole is in certificate.json"
        changed = _change(change, self.diff, room - len(table) - 200)
        sections = [*told, *reason, *changed, *more, *([table] if table else [])]
        return words.cut("\n\n".join(sections))

    def tags(self) -> dict[str, Any]:
        """What the run is found by: whose candidate it is, and what was said about it."""
        plan = words.mapping(self.drawn.get("plan"))
        return {
            "work": self.drawn.get("work"),
            "model": plan.get("model"),
            "kind": plan.get("kind"),
            "repair_of": self.drawn.get("repair_of"),
            "notes": words.join(plan.get("notes")) or None,
            "predicted_gain": words.number(self.candidate.get("predicted_gain")),
            **{f"analysis.{name}": self.analysis.get(name) for name in ("by", "effect", "verdict")},
            **{f"opinion.{name}": self.opinion.get(name) for name in ("model", "novelty", "simplicity")},
        }

    def _verdict(self) -> list[str]:
        if not self.verified:
            return []
        against = words.told(self.verified.get("against"), 80)
        p = words.number(self.verified.get("p"))
        chance = "" if p is None else f"; p = {p:.3g}, corrected"
        return [
            f"**Verdict:** {words.told(self.verified.get('verdict'), 40)}. On seeds and text that no trial had it "
            f"gains {words.escape(words.gain(self.verified.get('gain')))} bits per byte over {against}{chance}"
        ]

    def _motivation(self) -> list[str]:
        motivation = words.told(self.candidate.get("motivation"), 900)
        return [f"**Motivation:** {motivation}" if motivation else "No motivation was given."]

    def _origin(self) -> list[str]:
        parent, trial = (words.told(name, 40) for name in self.parent)
        parts = [
            f"operator {words.told(self.candidate.get('operator'), 60)}" if self.candidate.get("operator") else "",
            f"parent {parent}" + (f" ({trial})" if trial else "") if parent else "",
            f"family {words.told(self.family, 80)}" if self.family else "",
        ]
        told = ", ".join(filter(None, parts))
        return [f"**Made by:** {told}"] if told else []

    def _prediction(self) -> list[str]:
        predicted, gain = words.number(self.candidate.get("predicted_gain")), words.number(self.analysis.get("gain"))
        gain = words.number(self.outcome.get("gain")) if gain is None else gain
        if predicted is None:
            if gain is None:
                return []
            return [f"**Gain:** {gain:+.4f} bits per byte over the best parent, at one seed: no interval"]
        verdict = self.analysis.get("verdict")
        measured = "" if gain is None else f"; measured: {gain:+.4f}"
        judged = f" ({words.told(verdict, 40)})" if verdict else ""
        return [f"**Predicted gain:** {predicted:+.4f} bits per byte over the best parent{measured}{judged}"]

    def _curve(self) -> list[str]:
        if not self.rungs:
            return []
        steps = sorted(self.rungs)[-_RUNGS:]
        lines = [f"| {step} | {self.rungs[step]:.4f} |" for step in steps]
        return ["\n".join(["**Learning curve**", "", "| step | bits per byte |", "| --- | --- |", *lines])]

    def _analysis(self) -> list[str]:
        text = words.told(self.analysis.get("text"), _TEXT_CHARACTERS)
        return [f"**Analysis** (by {words.told(self.analysis.get('by'), 80)}): {text}"] if text else []

    def _opinion(self) -> list[str]:
        if not self.opinion:
            return []
        novelty, simplicity, model = (
            words.told(self.opinion.get(name), 60) for name in ("novelty", "simplicity", "model")
        )
        because = words.told(self.opinion.get("because"), _TEXT_CHARACTERS)
        return [f"**Opinion** (by {model}): novelty {novelty}, simplicity {simplicity} of 10. {because}".strip()]

    def _shown(self) -> list[str]:
        """What the model was shown beside the parents."""
        plan = words.mapping(self.drawn.get("plan"))
        notes, lessons = words.join(plan.get("notes")), plan.get("lessons")
        sections = [f"**Notes shown:** {words.told(notes, 300)}"] if notes else []
        if isinstance(lessons, list | tuple) and lessons:
            lines = [f"- {words.told(lesson, _LESSON_CHARACTERS)}" for lesson in lessons[:_LESSONS]]
            sections.append("\n".join(["**Lessons shown:**", "", *lines]))
        return sections

    def _files(self) -> list[str]:
        place = words.told(self.checkpoint, 300)
        return [f"**Files:** source candidate.py{f'; checkpoint {place}' if place else ''}"]


def _change(title: str, diff: str, room: int) -> list[str]:
    """The diff in a block of code, cut with a note, or only named where there is no room."""
    if not diff:
        return []
    if len(diff) <= room:
        return [f"{title}\n\n{words.fence(diff)}"]
    if room < _LEAST:
        return [f"{title}: in parent.diff"]
    return [f"{title} (cut: the whole is in parent.diff)\n\n{words.fence(words.first_lines(diff, room))}"]


def _reason(text: str, room: int) -> list[str]:
    """Why there is no score, in a block of code; a traceback says what matters at its end."""
    if not text:
        return []
    room = max(room, 200)
    if len(text) <= room:
        return [words.fence(text)]
    return [words.fence(f"(cut: the whole is in reason.txt)\n...{words.last_lines(text, room)}")]


def _table(certificate: Mapping[str, Any]) -> str:
    rows = [(name, certificate.get(name)) for name in ("flops_per_token", "params", "state_bytes", "fingerprint")]
    rows += [(f"growth of {name}", value) for name, value in words.mapping(certificate.get("exponents")).items()]
    rows += list(words.mapping(certificate.get("checks")).items())
    cells = [f"| {words.told(name, 60)} | {words.told(value, 300)} |" for name, value in rows if value is not None]
    return "\n".join(["**Certificate**", "", "| check | seen |", "| --- | --- |", *cells])


def _short(value: Any) -> Any:
    """A measured number with the digits that mean something."""
    return f"{value:.4f}" if isinstance(value, float) else value


def _outcome_in_words(outcome: Mapping[str, Any]) -> list[str]:
    kind = outcome.get("kind")
    if kind is None:
        return ["**Outcome:** not known yet"]
    if kind == "fitness":
        early = ", stopped early by the scheduler" if outcome.get("stopped") else ""
        return [f"**Outcome:** trained to {_score_in_words(outcome)}{early}"]
    phrase = f"rejected by the gate's check {words.told(outcome.get('check'), 60)}"
    if kind == "crashed":
        phrase = f"crashed: {words.told(outcome.get('cause'), 60)}"
    if kind == "held":
        measured = _score_in_words(words.mapping(outcome.get("fitness")))
        phrase = f"held ({words.told(outcome.get('tripwire'), 60)}), and no score until a person accepts it: {measured}"
    return [f"**Outcome:** {phrase}"]


def _score_in_words(fitness: Mapping[str, Any]) -> str:
    bits, error = (words.escape(_short(fitness.get(name))) for name in ("bits_per_byte", "stderr"))
    phrase = f"{bits} (standard error over text {error}) bits per byte in {words.escape(fitness.get('step'))} steps"
    held_out = fitness.get("held_out_bits_per_byte")
    return phrase if held_out is None else f"{phrase}, {words.escape(_short(held_out))} on held-out bytes"
