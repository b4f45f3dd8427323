"""What a search learns from its trials, in words: by rules alone, so that the record exists without a language model.

Every trial gets an analysis (`analyse`): what came out, held against what was predicted, against its parents and its
siblings; feedback in words is kept for later attempts, as in Reflexion (Shinn et al. 2023,
https://arxiv.org/abs/2303.11366). `Lessons` distils the analyses of a search into sentences for the next proposals,
`Predictions` says how far each proposer's predictions can be trusted, and `weaknesses` puts into search words what a
parent is weak in.

Pure, and a function of the events: a resumed search knows the same as one that was never interrupted.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from nas.types import Crashed, Fitness, Held, Rejected, Trial

EFFECTS = ("helps", "hurts", "none", "fails")
VERDICTS = ("confirmed", "contradicted", "unclear", "no prediction")
REASON_LETTERS = 160  # of what a candidate may say in a reason

_CUSTOM = "custom"  # what `SearchSpace.describe` calls a part that is the source's own
_TEXT_LETTERS = 800
_LESSON_LETTERS = 400
_DISCOUNT = 0.97  # the last 23 analyses of an operator weigh as much as all before them can
_LEAST_WEIGHT = 0.25  # what was seen once goes when contradicted twice, or after 46 analyses of its operator


# The analysis of one trial


def analyse(
    trial: Trial, parents: Sequence[Trial], siblings: Sequence[Trial], gain: float | None, noise: float, change: str
) -> dict[str, Any]:
    """What `trial` taught: an `analysis` event of the journal, but for its keys `event` and `time`.

    With gain g over the best parent, standard deviation s of the noise and prediction p, the effect is "helps" if
    `g > s`, "hurts" if `g < -s`, else "none"; "fails" if the candidate was rejected or crashed. The prediction is

        confirmed     if sign(p) g > s  and  |g| >= |p| / 2
        contradicted  if sign(p) g < -s,  or  |p| > s  and  sign(p) g <= s
        unclear       else, and where nothing was measured

    A lost worker and a held trial teach nothing: effect "none", no gain, and the text says why.

    Args:
      trial: the finished trial.
      parents: the trials of its candidate's parents.
      siblings: the other children of the same parent by the same operator; `trial` itself may be among them.
      gain: bits per byte gained, for a trial that shares no rung with any of `parents`. Where there is a shared rung
        the gain is that at the last one, with its sign: the credit of an archive is 0 for every loss.
      noise: standard deviation of bits per byte over training seeds; 0 while nothing was repeated.
      change: what the operator changed, as `change_of` says it.

    Returns:
      JSON values. A failure has one key more, "failure": {"how": ..., "reason": ...}, of which lessons are made.
    """
    predicted = trial.candidate.predicted_gain
    analysis: dict[str, Any] = {
        "trial": trial.id,
        "by": "rules",
        "operator": trial.candidate.operator,
        "change": change,
        "effect": "none",
        "gain": None,
        "predicted_gain": predicted,
        "verdict": "no prediction" if predicted is None else "unclear",
    }
    if (nothing := _teaches_nothing(trial)) is not None:
        return {**analysis, "text": nothing}
    about_siblings = _against_siblings(trial, siblings, noise)
    if (failure := _failure(trial)) is not None:
        untested = None if predicted is None else f"The predicted gain of {_bits(predicted)} was not put to the test."
        text = _text(f"It {_with_reason(failure['how'], failure['reason'])}.", untested, about_siblings)
        return {**analysis, "effect": "fails", "failure": failure, "text": text}
    measured, step = _gain_over_best(trial, parents) or (gain, None)
    verdict = _verdict(predicted, measured, noise)
    return {
        **analysis,
        "effect": _effect(measured, noise),
        "gain": measured,
        "verdict": verdict,
        "text": _text(_against_parent(measured, step, noise), _about_prediction(predicted, verdict), about_siblings),
    }


def change_of(before: Mapping[str, str], after: Mapping[str, str], operator: str) -> str:
    """What a mutation changed, e.g. "decay: per head -> per channel": the key under which lessons are collected.

    Args:
      before: slot -> part of the first parent, as `SearchSpace.describe` says it.
      after: the same of the child.
      operator: the mutation operator; its own slot comes first, the others in the order of `after`.

    Returns:
      The slots that differ, joined by "; "; "inside write_rule" if none does and the operator has a slot, else "by
      crossover"; "every part -> custom" for a child that the space can't read.
    """
    changed = [slot for slot in after if slot in before and before[slot] != after[slot]]
    if not changed:
        return f"inside {operator}" if operator in after else f"by {operator}"
    if len(changed) > 1 and set(after.values()) == {_CUSTOM}:
        return f"every part -> {_CUSTOM}"
    changed.sort(key=lambda slot: slot != operator)
    return "; ".join(f"{slot}: {before[slot]} -> {after[slot]}" for slot in changed)


def _teaches_nothing(trial: Trial) -> str | None:
    """Why nothing can be learned from `trial`; None if something can."""
    match trial.outcome:
        case Held(tripwire=tripwire):
            return _text(f"It is held by the tripwire {tripwire}: nothing is learned until a person has looked at it.")
        case Crashed(cause="infrastructure"):
            return "Its worker was lost: that says nothing about the candidate, and nothing is learned from it."
        case Crashed(cause="disk"):
            return "The disk was full: that says nothing about the candidate, and nothing is learned from it."
        case Crashed(cause="devices"):
            return "Its worker had other devices than asked for: that says nothing about the candidate."
    return None


def _failure(trial: Trial) -> dict[str, str] | None:
    """How a candidate failed and why, in words that finish a sentence; None if it was trained."""
    match trial.outcome:
        case Rejected(check=check, reason=reason):
            return {"how": _one_line(f"was rejected by {check}", 60), "reason": _first_sentence(reason)}
        case Crashed(cause=cause, reason=reason):
            return {"how": _one_line(f"crashed ({cause})", 60), "reason": _first_sentence(reason)}
    return None


def _gain_over_best(trial: Trial, parents: Iterable[Trial]) -> tuple[float, int] | None:
    """Bits per byte gained over the best parent at the last rung that both reached, and that rung's step."""
    gains = (_gain_over(trial, parent) for parent in parents)
    return min((gain for gain in gains if gain is not None), default=None)


def _gain_over(trial: Trial, other: Trial) -> tuple[float, int] | None:
    curve, others = _curve(trial), _curve(other)
    step = max(curve.keys() & others.keys(), default=None)
    return None if step is None else (others[step] - curve[step], step)


def _effect(gain: float | None, noise: float) -> str:
    if gain is None or abs(gain) <= noise:
        return "none"
    return "helps" if gain > 0 else "hurts"


def _verdict(predicted: float | None, gain: float | None, noise: float) -> str:
    """See `analyse`."""
    if predicted is None:
        return "no prediction"
    if gain is None or predicted == 0:
        return "unclear"
    along = math.copysign(1, predicted) * gain
    if along > noise and abs(gain) >= abs(predicted) / 2:
        return "confirmed"
    if along < -noise or (abs(predicted) > noise >= along):
        return "contradicted"
    return "unclear"


def _against_parent(gain: float | None, step: int | None, noise: float) -> str:
    if gain is None:
        return "No parent of it was measured at a rung that it reached: its gain is not known."
    gained = f"{'gained' if gain >= 0 else 'lost'} {_bits(abs(gain))} bits per byte"
    where = "" if step is None else f" at step {step}, the last rung that both reached"
    beyond = "more than" if abs(gain) > noise else "within"
    spread = f"{beyond} one standard deviation of the noise ({_bits(noise)})" if noise else "the noise is not known yet"
    return f"It {gained} over its best parent{where}: {spread}."


def _about_prediction(predicted: float | None, verdict: str) -> str:
    if predicted is None:
        return "No gain was predicted."
    came_out = "neither confirmed nor contradicted" if verdict == "unclear" else verdict
    return f"The predicted gain of {_bits(predicted)} is {came_out}."


def _against_siblings(trial: Trial, siblings: Iterable[Trial], noise: float) -> str | None:
    if not trial.candidate.parents:
        return None
    others = [other for other in siblings if other.id != trial.id and _teaches_nothing(other) is None]
    by = f"of its parent by {trial.candidate.operator}"
    if not others:
        return f"It is the first child {by}."
    counts = Counter(_sibling(trial, other, noise) for other in others)
    compared = ", ".join(f"{counts[how]} {how}" for how in _SIBLINGS if counts[how])
    return f"Of {len(others)} other child{'ren' * (len(others) > 1)} {by}: {compared}."


_SIBLINGS = ("did better", "did worse", "did as well", "reached none of its rungs", "trained", "failed", "failed too")


def _sibling(trial: Trial, other: Trial, noise: float) -> str:
    """One of `_SIBLINGS`: how `other` did beside `trial`."""
    if _failure(trial) is not None:
        return "trained" if _failure(other) is None else "failed too"
    if _failure(other) is not None:
        return "failed"
    if (gained := _gain_over(other, trial)) is None:
        return "reached none of its rungs"
    return {"helps": "did better", "hurts": "did worse", "none": "did as well"}[_effect(gained[0], noise)]


# Lessons


@dataclass(frozen=True)
class Lesson:
    """What was seen of one change by one operator.

    Attributes:
      operator: the mutation operator.
      change: as `change_of` says it.
      effect: one of `EFFECTS`.
      weight: how much it is believed; see `Lessons`.
      text: one printable line of at most 400 letters.
    """

    operator: str
    change: str
    effect: str
    weight: float
    text: str


@dataclass
class _Belief:
    """The weight of one effect of one change, when its operator had been analysed `at` times, and what it rests on."""

    weight: float = 0.0
    at: int = 0
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def faded(self, now: int) -> float:
        weight = self.weight * _DISCOUNT ** (now - self.at)
        return weight if weight >= _LEAST_WEIGHT else 0.0


class Lessons:
    """The lessons of a search, rebuilt from its `analysis` events.

    An event i of an operator has a change c_i and an effect f_i. Each pair (c, f) of the operator has a weight,
    w_0 = 0, that the same seen again strengthens, another effect of the same change halves, and time wears away:

        w_i(c, f) = d w_{i-1}(c, f) + 1    if c = c_i and f = f_i
                    d w_{i-1}(c, f) / 2    if c = c_i and f != f_i
                    d w_{i-1}(c, f)        if c != c_i

    with the discount d = 0.97. A weight below 1/4 is 0, and its lesson is dropped; its trials stay counted. Operators
    do not wear each other's lessons away, so the order of events of different operators makes no difference.

    The latest analysis of a trial counts, in the place of the first: a model's may follow that of the rules.
    """

    def __init__(self) -> None:
        self._events: dict[str, Mapping[str, Any]] = {}  # trial -> its latest analysis

    def take(self, event: Mapping[str, Any]) -> None:
        """Learns from an `analysis` event. Its optional key `lesson` is a lesson in a model's own words.

        Raises:
          KeyError: if the event lacks a key.
          ValueError: if its effect is none of `EFFECTS`.
        """
        if event["effect"] not in EFFECTS:
            raise ValueError(f"the effect of a change is one of {', '.join(EFFECTS)}, not {event['effect']!r}")
        kept = {key: event[key] for key in ("operator", "change", "effect", "gain")}
        told = {key: event[key] for key in ("lesson", "failure") if event.get(key)}
        self._events[event["trial"]] = {**kept, **told}

    def strongest(self) -> list[Lesson]:
        """What is believed of every change: the effect with the most weight, the latest seen among equals.

        Strongest first; ties by operator and change.
        """
        beliefs, now, seen = self._fold()
        best: dict[tuple[str, str], Lesson] = {}
        for (operator, change, effect), belief in beliefs.items():
            weight = belief.faded(now[operator])
            known = best.get((operator, change))
            if weight and (known is None or weight > known.weight):
                text = _lesson_text(change, effect, belief.events, seen[operator, change])
                best[operator, change] = Lesson(operator, change, effect, weight, text)
        return sorted(best.values(), key=lambda lesson: (-lesson.weight, lesson.operator, lesson.change))

    def for_operator(self, operator: str, parts: Mapping[str, str], count: int) -> list[str]:
        """At most `count` sentences for a proposal by `operator`, no two alike.

        First this operator's lessons on changes away from what the parent has, then its others, then those of other
        operators; the strongest first in each.

        Args:
          parts: slot -> part of the parent, as `SearchSpace.describe` says it.
        """

        def distance(lesson: Lesson) -> int:
            return 2 if lesson.operator != operator else int(not _starts_from(lesson.change, parts))

        sentences: dict[str, str] = {}
        for lesson in sorted(self.strongest(), key=distance):
            sentences.setdefault(lesson.text.casefold().rstrip(". "), lesson.text)
        return list(sentences.values())[: max(count, 0)]

    def _fold(self) -> tuple[dict[tuple[str, str, str], _Belief], Counter[str], Counter[tuple[str, str]]]:
        """Beliefs by operator, change and effect, the latest strengthened first; analyses by operator, and by change.

        Weights are worn away when they are next read: between two events of a change they only fall, so what falls
        below the threshold in between is below it then.
        """
        beliefs: dict[tuple[str, str, str], _Belief] = {}
        now: Counter[str] = Counter()
        seen: Counter[tuple[str, str]] = Counter()
        for event in filter(_is_evidence, self._events.values()):
            operator, change = event["operator"], event["change"]
            before = now[operator]
            now[operator] += 1
            seen[operator, change] += 1
            for effect in EFFECTS:
                if (belief := beliefs.get((operator, change, effect))) is not None and effect != event["effect"]:
                    belief.weight, belief.at = _DISCOUNT * belief.faded(before) / 2, now[operator]
            latest = beliefs.pop((operator, change, event["effect"]), _Belief())
            latest.weight, latest.at = _DISCOUNT * latest.faded(before) + 1, now[operator]
            latest.events.append(event)
            beliefs[operator, change, event["effect"]] = latest
        return dict(reversed(beliefs.items())), now, seen


def _is_evidence(event: Mapping[str, Any]) -> bool:
    """Whether something was measured: not of lost workers, held trials, and candidates without parents."""
    return event["effect"] != "none" or event["gain"] is not None


def _lesson_text(change: str, effect: str, events: Sequence[Mapping[str, Any]], seen: int) -> str:
    """The latest sentence of a model, else one by rules. `events` have this effect; `seen` counts all of the change."""
    own_words = [event["lesson"] for event in events if "lesson" in event]
    return _one_line(own_words[-1] if own_words else _rule(change, effect, events, seen), _LESSON_LETTERS)


def _rule(change: str, effect: str, events: Sequence[Mapping[str, Any]], seen: int) -> str:
    what, share = _one_line(change, REASON_LETTERS), f"({len(events)} of {seen})"
    if effect == "fails":
        failures = [event.get("failure", {"how": "failed", "reason": ""}) for event in events]
        how, times = Counter(failure["how"] for failure in reversed(failures)).most_common(1)[0]
        reason = next(failure["reason"] for failure in reversed(failures) if failure["how"] == how)
        return f"{what} {_with_reason(f'{how} {_times(times)}', reason)}"
    gains = [abs(event["gain"]) for event in events if event["gain"] is not None]
    if effect == "none" or not gains:
        return f"{what} {_WITHOUT_FIGURES[effect]} {share}"
    return f"{what} {'gained' if effect == 'helps' else 'lost'} {_bits(fmean(gains))} bits per byte {share}"


_WITHOUT_FIGURES = {"helps": "helped", "hurts": "hurt", "none": "made no difference beyond the noise"}


def _starts_from(change: str, parts: Mapping[str, str]) -> bool:
    """Whether `change` leads away from `parts` in every slot that it names."""
    steps = [re.fullmatch(r"(\w+): (.+?) -> .+", step) for step in change.split("; ")]
    return all(step is not None and parts.get(step[1]) == step[2] for step in steps)


# Predictions


@dataclass(frozen=True)
class Calibration:
    """How a proposer's predictions came out.

    Attributes:
      verdicts: verdict -> number of trials.
      confirmed: share of the confirmed among the predictions of trials that were measured; None without any.
      predicted_gain: mean of these predictions, in bits per byte; None without any.
      gain: mean of what these trials gained, in bits per byte.
    """

    verdicts: Mapping[str, int]
    confirmed: float | None
    predicted_gain: float | None
    gain: float | None


class Predictions:
    """Predicted against measured gains, by the model that proposed. The latest analysis of a trial counts."""

    def __init__(self) -> None:
        self._by_trial: dict[str, tuple[str, str, float | None, float | None]] = {}

    def take(self, event: Mapping[str, Any], model: str) -> None:
        """Counts an `analysis` event of a candidate that `model` proposed.

        Raises:
          KeyError: if the event lacks a key.
          ValueError: if its verdict is none of `VERDICTS`.
        """
        if event["verdict"] not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {event['verdict']!r}")
        self._by_trial[event["trial"]] = (model, event["verdict"], event["predicted_gain"], event["gain"])

    def by_model(self) -> dict[str, Calibration]:
        """Model -> its calibration, in alphabetical order."""
        models = sorted({model for model, *_ in self._by_trial.values()})
        return {
            model: _calibration([rest for name, *rest in self._by_trial.values() if name == model]) for model in models
        }


def _calibration(predictions: Sequence[Sequence[Any]]) -> Calibration:
    counts = Counter(verdict for verdict, _, _ in predictions)
    measured = [entry for entry in predictions if entry[1] is not None and entry[2] is not None]
    verdicts = {verdict: counts[verdict] for verdict in VERDICTS}
    if not measured:
        return Calibration(verdicts, None, None, None)
    return Calibration(
        verdicts,
        confirmed=fmean(verdict == "confirmed" for verdict, _, _ in measured),
        predicted_gain=fmean(predicted for _, predicted, _ in measured),
        gain=fmean(gain for _, _, gain in measured),
    )


# What a parent is weak in


_DEAR = 1.25  # times the best baseline's FLOPs: Gated DeltaNet's mixer has 1.19 times those of Mamba2
_STATE = 2.0  # times the baselines' median, or its inverse: a state of twice or half as many keys or values


def weaknesses(trial: Trial, baselines: Sequence[Trial], children: Sequence[Trial] = ()) -> list[str]:
    """Search words for notes that may mend what `trial` was measured to be weak in.

      slow early      more baselines are ahead of it at its first rung than at its last
      falls behind    the reverse
      dear            over 1.25 times the FLOPs per token of the best baseline's mixer
      small state     at most half the bytes of the baselines' median; large: at least twice as many
      unstable        a rung is worse than the one before, or it or a child of it diverged

    Args:
      trial: of the parent.
      baselines: those on the same rungs; one of them may be `trial`.
      children: its children's trials so far.
    """
    rivals = [other for other in baselines if other.id != trial.id]
    return list(dict.fromkeys([*_pace(trial, rivals), *_size(trial, rivals), *_stability(trial, children)]))


def _pace(trial: Trial, rivals: Iterable[Trial]) -> Iterator[str]:
    curve = _curve(trial)
    if len(curve) < 2:
        return
    first, last = min(curve), max(curve)
    curves = [other for rival in rivals if (other := _curve(rival)).keys() >= {first, last}]
    ahead_first, ahead_last = (sum(other[step] < curve[step] for other in curves) for step in (first, last))
    if ahead_first > ahead_last:
        yield "slow early convergence initialisation"
    if ahead_first < ahead_last:
        yield "expressive capacity state tracking"


def _size(trial: Trial, rivals: Iterable[Trial]) -> Iterator[str]:
    known = [
        (rival.outcome, rival.certificate)
        for rival in rivals
        if isinstance(rival.outcome, Fitness) and rival.certificate is not None
    ]
    if trial.certificate is None or not known:
        return
    _, of_best = max(known, key=lambda pair: (pair[0].step, pair[0].score))
    if trial.certificate.flops_per_token > _DEAR * of_best.flops_per_token:
        yield "cost efficiency fewer operations chunk parallel"
    states = [certificate.state_bytes for _, certificate in known if certificate.state_bytes is not None]
    if trial.certificate.state_bytes is None or not states:
        return
    if trial.certificate.state_bytes <= median(states) / _STATE:
        yield "associative recall small state capacity"
    elif trial.certificate.state_bytes >= median(states) * _STATE:
        yield "memory large state compression"


def _stability(trial: Trial, children: Iterable[Trial]) -> Iterator[str]:
    bits = [rung.bits_per_byte for rung in sorted(trial.rungs, key=lambda rung: rung.step)]
    rises = any(later > earlier for earlier, later in pairwise(bits))
    outcomes = [each.outcome for each in (trial, *children)]
    if rises or any(isinstance(outcome, Crashed) and outcome.cause == "diverged" for outcome in outcomes):
        yield "training stability bounded gradients"


# Words


def _curve(trial: Trial) -> dict[int, float]:
    """Optimizer step -> validation bits per byte."""
    return {rung.step: rung.bits_per_byte for rung in trial.rungs}


def _bits(value: float) -> str:
    """Bits per byte to three decimals; a model's prediction can be of any size."""
    return f"{value:.3f}" if value == 0 or 0.0005 <= abs(value) < 1000 else f"{value:.1g}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _with_reason(words: str, reason: str) -> str:
    return f"{words}: {reason}" if reason else words


def _text(*sentences: str | None) -> str:
    return _one_line(" ".join(sentence for sentence in sentences if sentence), _TEXT_LETTERS)


def _first_sentence(reason: str) -> str:
    """What a reason comes to: its first sentence, of a traceback the exception; printable, at most 160 letters."""
    if "Traceback (most recent call last)" in reason:
        lines = [line for line in reason.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])
    line = _one_line(reason, 4 * REASON_LETTERS)
    return _one_line(re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0], REASON_LETTERS).rstrip(".")


_EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")  # JAX has notes of its own printed below it


def _one_line(text: str, letters: int) -> str:
    """`text` as one printable line of at most `letters`: a candidate's names and messages are anything at all."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * letters])
    words = " ".join(printable.split())
    return words if len(words) <= letters else f"{words[: letters - 3]}..."
