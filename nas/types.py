"""The vocabulary of the engine. Standard library only, immutable, and plain JSON both ways.

Failure is a value here: a trial ends as `Fitness`, `Rejected`, `Crashed` or `Held`, and only `Fitness` is a score.
"""

import ast
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any

from nas.parsing import parse


def canonical_source(source: str) -> str:
    """`source` without comments, docstrings and formatting: what decides whether two candidates are one.

    Raises:
      SyntaxError: if `source` is not Python.
    """
    tree = parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # A string below a docstring becomes one without it.
        strings = next((at for at, line in enumerate(node.body) if not _is_string(line)), len(node.body))
        node.body = node.body[strings:] or [ast.Pass()] if strings else node.body
    return ast.unparse(tree)


def _is_string(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@lru_cache(maxsize=2048)  # a table's candidates have few sources, and are made again and again
def source_id(source: str) -> str:
    """Twelve hexadecimal digits that name a source, equal for sources that differ in looks alone."""
    try:
        canonical = canonical_source(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # it still needs a name, to be rejected under
        canonical = source
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Raises ValueError if one of `values` is no number, or not finite."""
    for name, value in values.items():
        if not (isinstance(value, Real) and abs(value) < math.inf):  # type: ignore[operator]  # NaN is not less
            raise ValueError(f"{name} is {value!r}: what is no finite number is never a measurement")


@dataclass(frozen=True)
class Operator:
    """A kind of mutation, and so an arm of the meta-learner.

    Attributes:
      name: e.g. "decay".
      describe: one sentence: what a child made by it may change.
      parents: how many parents it takes.
    """

    name: str
    describe: str
    parents: int = 1


@dataclass(frozen=True)
class Candidate:
    """One architecture as source code, and where it came from.

    Attributes:
      source: a Python module that defines `TokenMixer`.
      operator: the mutation operator that made it, or "baseline".
      parents: ids of the candidates it was made from.
      proposer: who wrote it ("grammar", "folder", "hand", ...).
      motivation: why it should help, in a sentence.
      name: a short name for people; baselines have their family's.
      predicted_gain: bits per byte that its author expects it to gain over its best parent; None if it said nothing.

    Raises:
      ValueError: if the prediction is not finite.
    """

    source: str
    operator: str
    parents: tuple[str, ...] = ()
    proposer: str = "hand"
    motivation: str = ""
    name: str = ""
    predicted_gain: float | None = None

    def __post_init__(self) -> None:
        _check_numbers({"predicted_gain": self.predicted_gain or 0.0})

    @cached_property
    def id(self) -> str:
        return source_id(self.source)


@dataclass(frozen=True)
class Certificate:
    """What the gate saw of a candidate that passed every check.

    Attributes:
      checks: check name -> what was seen, in words.
      flops_per_token: forward FLOPs of the mixer per token at the training length.
      params: parameters of one mixer.
      state_bytes: size of the decoding state at batch 1, or None without `init_state`.
      exponents: fitted growth in time, e.g. {"flops": 1.0, "memory": 1.0}.
      fingerprint: hash of the function computed under fixed parameters and inputs.

    Raises:
      ValueError: if a number is not finite.
    """

    checks: Mapping[str, str]
    flops_per_token: float
    params: int
    state_bytes: int | None
    exponents: Mapping[str, float]
    fingerprint: str

    def __post_init__(self) -> None:
        sizes = {"flops_per_token": self.flops_per_token, "params": self.params, "state_bytes": self.state_bytes or 0}
        _check_numbers({**sizes, **self.exponents})


@dataclass(frozen=True)
class Budget:
    """What a trial may spend: optimizer steps, and the seed that fixes its initial parameters and data order."""

    steps: int
    seed: int = 0


@dataclass(frozen=True)
class Rung:
    """One measurement on the way: validation bits per byte after `step` optimizer steps.

    Raises:
      ValueError: if a number is not finite.
    """

    step: int
    bits_per_byte: float
    train_seconds: float = 0.0
    tokens_per_second: float = 0.0

    def __post_init__(self) -> None:
        _check_numbers(asdict(self))


@dataclass(frozen=True)
class Cost:
    """What a trial spent, in seconds of wall-clock."""

    gate_seconds: float = 0.0
    train_seconds: float = 0.0
    total_seconds: float = 0.0


@dataclass(frozen=True)
class Fitness:
    """What training measured. Every number is finite.

    Attributes:
      bits_per_byte: on the validation split after the last step; less is better.
      step: optimizer steps taken (fewer than asked for if the scheduler stopped the trial).
      score: what ranks candidates; more is better. Made by `nas.fitness`.
      stderr: standard error of bits_per_byte over held-out windows (not over seeds).
      tokens_per_second: training throughput after compilation.
      peak_bytes: largest resident memory of the training process.
      flops_per_token: forward FLOPs of the whole model per token.
      params: parameters of the whole model.
      probes: probe task -> score.
      held_out_bits_per_byte: on bytes that the training process never saw, measured from the checkpoint by a process
        that runs no line of the candidate (`nas.rescore`); None for a trial that was no contender.
      held_out_stderr: its standard error over windows.
      learning_rate: the peak that it was trained with, of those in its grid; None in records from before there was one.

    Raises:
      ValueError: if one is not.
    """

    bits_per_byte: float
    step: int
    score: float
    stderr: float
    tokens_per_second: float
    peak_bytes: int
    flops_per_token: float
    params: int
    probes: Mapping[str, float] = field(default_factory=dict)
    held_out_bits_per_byte: float | None = None
    held_out_stderr: float | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        numbers = asdict(self)
        if self.held_out_bits_per_byte is None and self.held_out_stderr is None:
            del numbers["held_out_bits_per_byte"], numbers["held_out_stderr"]
        if self.learning_rate is None:
            del numbers["learning_rate"]
        _check_numbers({**numbers.pop("probes"), **numbers})


@dataclass(frozen=True)
class Rejected:
    """The gate said no: which check, and what it saw, in words that a proposer can act on."""

    check: str
    reason: str


ELSEWHERE = frozenset({"infrastructure", "disk", "devices"})  # causes of a crash that say nothing of the candidate


@dataclass(frozen=True)
class Crashed:
    """The candidate ran and failed.

    Attributes:
      cause: "diverged" | "floor" | "timeout" | "memory" | "raised" | "killed" | "disk" | "devices" |
        "infrastructure".
      reason: one sentence, or the traceback.
    """

    cause: str
    reason: str


@dataclass(frozen=True)
class Held:
    """Too good, or no longer what was certified: it is neither celebrated nor counted until a person has looked.

    Attributes:
      tripwire: "leap" | "entropy" | "rescore" | "certificate" (see `nas.tripwires`).
      reason: one sentence: what was seen, and against what it was held.
      fitness: what training measured, for the person; no score until then.
    """

    tripwire: str
    reason: str
    fitness: Fitness


Outcome = Fitness | Rejected | Crashed | Held
_OUTCOMES: dict[str, type[Fitness] | type[Rejected] | type[Crashed]] = {
    "fitness": Fitness,
    "rejected": Rejected,
    "crashed": Crashed,
}


@dataclass(frozen=True)
class Trial:
    """One finished trial: one line of the journal.

    Attributes:
      id: unique within a search.
      purpose: "baseline" | "search" | "confirm"; "guest" of one that another search has trained (`nas.guests`).
      stopped: whether the scheduler stopped it before its budget was spent.
    """

    id: str
    candidate: Candidate
    purpose: str
    budget: Budget
    outcome: Outcome
    cost: Cost
    rungs: tuple[Rung, ...] = ()
    certificate: Certificate | None = None
    stopped: bool = False


def outcome_kind(outcome: Outcome) -> str:
    """'fitness', 'rejected', 'crashed' or 'held'."""
    return type(outcome).__name__.lower()


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values. `candidate` carries its id, `outcome` its kind."""
    record = asdict(trial)
    record["candidate"] = candidate_to_json(trial.candidate)
    record["outcome"] = outcome_to_json(trial.outcome)
    return record


def trial_from_json(record: Mapping[str, Any]) -> Trial:
    """The inverse of `trial_to_json`.

    Raises:
      KeyError, TypeError, ValueError: if the record is damaged.
    """
    certificate = record.get("certificate")
    return Trial(
        id=record["id"],
        candidate=candidate_from_json(record["candidate"]),
        purpose=record["purpose"],
        budget=Budget(**record["budget"]),
        outcome=outcome_from_json(record["outcome"]),
        cost=Cost(**record["cost"]),
        rungs=tuple(Rung(**rung) for rung in record["rungs"]),
        certificate=Certificate(**certificate) if certificate else None,
        stopped=record["stopped"],
    )


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values, with its kind: "fitness", "rejected", "crashed" or "held"."""
    return {"kind": outcome_kind(outcome), **asdict(outcome)}


def outcome_from_json(record: Mapping[str, Any]) -> Outcome:
    """The inverse of `outcome_to_json`."""
    fields = {key: value for key, value in record.items() if key != "kind"}
    if record["kind"] == "held":
        return Held(**{**fields, "fitness": Fitness(**fields["fitness"])})
    return _OUTCOMES[record["kind"]](**fields)


def candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON values, with its id."""
    return {"id": candidate.id, **asdict(candidate)}


def candidate_from_json(record: Mapping[str, Any]) -> Candidate:
    """The inverse of `candidate_to_json`; the id is recomputed from the source."""
    fields = {key: value for key, value in record.items() if key != "id"}
    return Candidate(**{**fields, "parents": tuple(fields["parents"])})
