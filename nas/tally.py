"""What the language models of a search did, counted from the journal's events: for the live view, MLflow and the end.

Standard library only. Damage to an event costs that event alone.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]

# Why a call failed, why an answer could not be used, and what became of a prediction. What is none of these is counted
# as "other": no word of a model or an endpoint becomes part of a sentence here.
FAILURES = frozenset(
    {
        *("rate limit", "server", "timeout", "connection", "broken"),
        *("too large", "empty", "authentication", "not found", "refused", "stopped"),
    }
)
UNUSABLE = frozenset({"json", "schema", "diff", "python", "copy", "near copy"})
VERDICTS = frozenset({"confirmed", "contradicted", "unclear"})
OTHER = "other"


@dataclass
class Tally:
    """Counts what `take` is given; `words` and `result` say it.

    Attributes:
      calls: requests that were answered or failed, each try by itself.
      failed: how many of these failed, by kind.
      unusable: answers that came and could not be used, by kind.
      tokens: in and out, of all calls.
      estimated: whether some of the tokens are an estimate, since the endpoint did not count them.
      dollars: by the prices in the settings.
      models: of each proposal that was drawn: work -> model.
      open: the proposals that are in the making or ready, oldest first.
      replaced: proposals that came to nothing: the grammar took their place.
      candidates: that were asked for, copies and baselines left out, by who wrote them: a model, or another proposer.
      verdicts: what the last analysis of a trial says of its prediction, where it had one: trial -> verdict.
    """

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    estimated: bool = False
    dollars: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    replaced: int = 0
    candidates: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there was a language model at all."""
        return bool(self.models or self.calls)

    def take(self, event: Event) -> None:
        """Counts one event of the journal; those that are not about language models or candidates change nothing."""
        match event.get("event"):
            case "draw":
                self._draw(event)
            case "completion":
                self._call(event)
            case "call_failed":
                self._call(event)
                self.failed[_known(event.get("kind"), FAILURES)] += 1
            case "unusable":
                self.unusable[_known(event.get("kind"), UNUSABLE)] += 1
            case "no_proposal":
                self.open.pop(_text(event.get("work")), None)
                self.replaced += 1
            case "ask":
                self._ask(event)
            case "analysis" if event.get("verdict") != "no prediction":
                self.verdicts[_text(event.get("trial"))] = _known(event.get("verdict"), VERDICTS)

    def author(self, ask: Event) -> str:
        """Who wrote the candidate of an `ask` event: the model of its work, or else its proposer's name."""
        candidate = ask.get("candidate")
        proposer = candidate.get("proposer") if isinstance(candidate, Mapping) else None
        model = self.models.get(_text(ask.get("work"))) if proposer == "llm" else None  # the grammar stands in
        return model or _text(proposer)

    def words(self) -> str:
        """What the calls came to, in one line: "41 calls, 1 failed (1 timeout), 120k tokens, $0.31"."""
        parts = [_count(self.calls, "call")]
        if self.failed:
            parts.append(f"{self.failed.total()} failed ({_kinds(self.failed)})")
        if self.unusable:
            parts.append(f"{_count(self.unusable.total(), 'unusable answer')} ({_kinds(self.unusable)})")
        about = "about " if self.estimated else ""
        parts += [f"{about}{_thousands(self.tokens)} tokens", f"{about}${_dollars(self.dollars)}"]
        ahead = f"; {_count(len(self.open), 'proposal')} ready or in the making" if self.open else ""
        return ", ".join(parts) + ahead

    def result(self) -> str:
        """Whose the candidates are and how the predictions ended, in one line; holds names as they were given."""
        parts: list[str] = []
        for who, count in _ordered(self.candidates):
            parts.append(f"{count} by {who}" if parts else f"{_count(count, 'candidate')} by {who}")
        sentences = [", ".join(parts)] if parts else []
        if self.replaced:
            sentences.append(f"{_count(self.replaced, 'proposal')} came to nothing and left it to the grammar")
        if self.verdicts:
            sentences.append(f"predictions: {_kinds(Counter(self.verdicts.values()))}")
        return "; ".join(sentences)

    def _draw(self, event: Event) -> None:
        plan, work = event.get("plan"), _text(event.get("work"))
        model = _text(plan.get("model")) if isinstance(plan, Mapping) else ""
        if work and model:
            self.models[work] = model
            self.open[work] = None

    def _call(self, event: Event) -> None:
        self.calls += 1
        self.tokens += int(_amount(event.get("tokens_in")) + _amount(event.get("tokens_out")))
        self.dollars += _amount(event.get("dollars"))
        self.estimated |= event.get("estimated") is True

    def _ask(self, event: Event) -> None:
        self.open.pop(_text(event.get("work")), None)
        if event.get("purpose") == "search" and not event.get("duplicate"):
            self.candidates[self.author(event)] += 1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _amount(value: Any) -> float:
    """`value` if it is a finite amount, or else nothing."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 1e15 else 0.0


def _known(kind: Any, kinds: frozenset[str]) -> str:
    return kind if isinstance(kind, str) and kind in kinds else OTHER


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first; the same counts are always in the same order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _kinds(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in _ordered(counts))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _thousands(number: int) -> str:
    """950, 1.2k, 120k or 3.4M: as many digits as a person reads."""
    if number < 1_000:
        return str(number)
    size, letter = (1_000, "k") if number < 999_500 else (1_000_000, "M")
    return f"{number / size:.{int(number / size < 9.95)}f}{letter}"


def _dollars(amount: float) -> str:
    """Two digits after the point; four where they would hide what was spent."""
    return f"{amount:.4f}" if 0 < amount < 0.1 else f"{amount:.2f}"
