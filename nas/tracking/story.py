"""A candidate's page in MLflow: what was tried, expected, measured and learned. Others' text is shown as text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nas.tracking import words
from nas.tracking.writes import Event

_LESSONS = 6  # shown at most, each cut
_LESSON_CHARACTERS = 200
_TEXT_CHARACTERS = 1_200


@dataclass
class Story:
    """What is known of a candidate so far.

    Attributes:
      candidate: its motivation and prediction are told.
      outcome: with `stopped`; empty until there is one.
      drawn: the event by which its proposal was drawn, as `analysis` and `opinion` are the events about it.
    """

    candidate: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    drawn: Event = field(default_factory=dict)
    analysis: Event = field(default_factory=dict)
    opinion: Event = field(default_factory=dict)

    def markdown(self) -> str:
        """The page. MLflow takes so much, and the certificate, which is a file too, makes room first."""
        motivation = words.clean(self.candidate.get("motivation"))[:600]
        sections = [f"**Motivation:** {words.escape(motivation)}"] if motivation else []
        sections += self._prediction()
        sections += _outcome_in_words(self.outcome)
        sections += self._analysis() + self._opinion() + self._shown()
        if self.certificate:
            table = _table(self.certificate)
            fits = sum(map(len, sections)) + len(table) < words.TAG_CHARACTERS - 100
            sections.append(table if fits else "**Certificate:** in certificate.json")
        return words.cut("\n\n".join(sections) or "No motivation was given.")

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

    def _prediction(self) -> list[str]:
        predicted = words.number(self.candidate.get("predicted_gain"))
        if predicted is None:
            return []
        verdict, gain = self.analysis.get("verdict"), words.number(self.analysis.get("gain"))
        measured = "" if gain is None else f"; measured: {gain:+.4f}"
        judged = f" ({words.escape(verdict)})" if verdict else ""
        return [f"**Predicted gain:** {predicted:+.4f} bits per byte over the best parent{measured}{judged}"]

    def _analysis(self) -> list[str]:
        text = words.escape(words.clean(self.analysis.get("text"))[:_TEXT_CHARACTERS])
        return [f"**Analysis** (by {words.escape(self.analysis.get('by'))}): {text}"] if text else []

    def _opinion(self) -> list[str]:
        if not self.opinion:
            return []
        novelty, simplicity, model = (words.escape(self.opinion.get(n)) for n in ("novelty", "simplicity", "model"))
        because = words.escape(words.clean(self.opinion.get("because"))[:_TEXT_CHARACTERS])
        return [f"**Opinion** (by {model}): novelty {novelty}, simplicity {simplicity} of 10. {because}".strip()]

    def _shown(self) -> list[str]:
        """What the model was shown beside the parents."""
        plan = words.mapping(self.drawn.get("plan"))
        notes, lessons = words.join(plan.get("notes")), plan.get("lessons")
        sections = [f"**Notes shown:** {words.escape(notes[:_TEXT_CHARACTERS])}"] if notes else []
        if isinstance(lessons, list | tuple) and lessons:
            lines = [f"- {words.escape(words.clean(lesson)[:_LESSON_CHARACTERS])}" for lesson in lessons[:_LESSONS]]
            sections.append("\n".join(["**Lessons shown:**", "", *lines]))
        return sections


def _table(certificate: Mapping[str, Any]) -> str:
    rows = [(name, certificate.get(name)) for name in ("flops_per_token", "params", "state_bytes", "fingerprint")]
    rows += [(f"growth of {name}", value) for name, value in words.mapping(certificate.get("exponents")).items()]
    rows += list(words.mapping(certificate.get("checks")).items())
    cells = [
        f"| {words.escape(name)} | {words.escape(words.clean(value)[:300])} |"
        for name, value in rows
        if value is not None
    ]
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
    reason = words.clean(outcome.get("reason"))
    phrase = f"rejected by the gate's check {words.escape(outcome.get('check'))}"
    if kind == "crashed":
        phrase = f"crashed: {words.escape(outcome.get('cause'))}"
    if kind == "held":
        measured = _score_in_words(words.mapping(outcome.get("fitness")))
        phrase = f"held ({words.escape(outcome.get('tripwire'))}), and no score until a person accepts it: {measured}"
    if len(reason) > 2_500:  # a traceback says what matters at its end
        reason = "(cut: the whole is in reason.txt)\n..." + reason[-2_400:]
    return [f"**Outcome:** {phrase}", *([words.fence(reason)] if reason else [])]


def _score_in_words(fitness: Mapping[str, Any]) -> str:
    bits, error = (words.escape(_short(fitness.get(name))) for name in ("bits_per_byte", "stderr"))
    phrase = f"{bits} (standard error {error}) bits per byte in {words.escape(fitness.get('step'))} steps"
    held_out = fitness.get("held_out_bits_per_byte")
    return phrase if held_out is None else f"{phrase}, {words.escape(_short(held_out))} on held-out bytes"
