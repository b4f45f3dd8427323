"""What contained processes may report, and nothing else: each report is checked against its shape before it is used.

A candidate that breaks out of its code can send anything in these places: numbers that are none, words without end.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nas.gate.settings import CHECKS

MOST_LETTERS = 2000

Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Words = Annotated[str, AfterValidator(lambda text: text[:MOST_LETTERS])]


def _checks(checks: dict[str, str]) -> dict[str, str]:
    if tuple(checks) != CHECKS:
        raise ValueError("other checks than the gate's")
    return checks


class Report(BaseModel):
    """Strict: True is no number, "1" is none either. What it has beside its fields is dropped."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Measured(Report):
    """A rung of a training."""

    step: Annotated[int, Field(ge=1, le=10**12)]
    bits_per_byte: Number
    stderr: Number
    learning_rate: Number
    train_seconds: Number
    tokens_per_second: Number
    peak_bytes: Count
    flops_per_token: Number
    params: Count


class Certified(Report):
    """The gate's certificate."""

    checks: Annotated[dict[str, Words], AfterValidator(_checks)]
    flops_per_token: Number
    params: Count
    state_bytes: Count | None
    exponents: Annotated[dict[Annotated[str, Field(max_length=40)], Number], Field(max_length=10)]
    fingerprint: Annotated[str, Field(max_length=64)]


class Refused(Report):
    """The gate's rejection."""

    check: Annotated[str, Field(pattern=f"^({'|'.join(CHECKS)})$")]
    reason: Words


class Ended(Report):
    """A training that ended before its budget, by what its own process saw."""

    cause: Annotated[str, Field(pattern="^(diverged|floor|disk|devices|preempted)$")]
    reason: Words


class Unpacked(Report):
    """The parameters of a checkpoint, as they were written to a file."""

    dtypes: Annotated[
        dict[Annotated[str, Field(max_length=500)], Annotated[str, Field(pattern=r"^\w{1,32}$")]],
        Field(max_length=10_000),
    ]


class Packed(Report):
    """What a package computes beside what the engine does (see `nas.standalone.checking`)."""

    logits: Number
    step: Number | None
    bits_per_byte: Number | None


class Probed(Report):
    """One run on a probe task: a seed and a learning rate."""

    seed: Count
    learning_rate: Number
    accuracy: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=10)]
    loss: Number
    steps: Count
    seconds: Number


class ProbeFailed(Report):
    """One run on a probe task that came to nothing."""

    seed: Count
    learning_rate: Number
    crashed: Ended


class Exported(Report):
    """A candidate's program, in base64, and the names of its parameters."""

    program: str
    names: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=10_000)]
    drawn: bool = False


class Scored(Report):
    """What a checkpoint is worth."""

    bits_per_byte: Number
    held_out_bits_per_byte: Number
    held_out_stderr: Number
    fault: Words | None


class Likelihood(Report):
    """How likely the scored tokens of a text are, and whether each is the likeliest."""

    nats: Number
    greedy: bool


class Continuation(Report):
    """The tokens that a model goes on with."""

    tokens: list[Count]


class Answered(Report):
    """Answers to the requests of `nas.answering`, in their order."""

    answers: list[Likelihood | Continuation]


class Run(Report):
    """One of several trainings of an architecture."""

    name: Annotated[str, Field(max_length=100)]
    diverged: bool
    params: Count
    flops_per_token: Number
    tokens_per_second: Number
    train_seconds: Number


class Tabulated(Report):
    """One of several trainings of an architecture, with what its own process says that it is worth."""

    seed: Count
    bits_per_byte: Number
    stderr: Number
    params: Count
    flops_per_token: Number
    train_seconds: Number


class RunScore(Report):
    """What one checkpoint is worth: bits per byte of each window of held-out text; none where they are not finite."""

    bits: Annotated[list[Number], Field(max_length=100_000)]
    fault: Words | None


class RunScores(Report):
    """The same of several, by the names of their trainings."""

    scores: Annotated[dict[str, RunScore], Field(max_length=10_000)]


Kind = TypeVar("Kind", bound=Report)


def read(kind: type[Kind], sent: Any) -> Kind | None:
    """`sent` as a report of this kind; None if it is none."""
    try:
        return kind.model_validate(sent)
    except ValidationError:
        return None
