"""What the gate is told: plain JSON values, so that it can cross a pipe. Imports no JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CHECKS = ("static", "contract", "causality", "purity", "parity", "cost", "novelty")


REASON_LETTERS = 400


class Fault(Exception):
    """What a check found: becomes `Rejected(check, reason)`. The reason is one printable line."""

    def __init__(self, check: str, reason: str):
        self.check, self.reason = check, one_line(reason)
        super().__init__(f"{check}: {self.reason}")


def one_line(text: str, letters: int = REASON_LETTERS) -> str:
    """`text` as one printable line of at most `letters`: a candidate's names and messages are anything at all."""
    cleaned = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * letters])
    words = " ".join(cleaned.split())
    return words if len(words) <= letters else words[: letters - 3] + "..."


@dataclass(frozen=True)
class GateSettings:
    """The shapes a candidate will be trained at, and what it may use.

    Attributes:
      width: of the model that the mixer sits in.
      heads: handed to the mixer; what it does with them is its own affair.
      train_time: tokens per training sequence.
      train_batch: sequences per training step: what is checked at the training length is the program that is trained.
      allowed_imports: modules; `a.b` allows `import a.b` and `from a import b`.
      max_params: parameters of one mixer, with all other numbers that it keeps; None: no limit on the parameters.
      max_flops_per_token: forward FLOPs of one mixer per token at `train_time`; None: no limit.
      max_state_bytes: decoding state at batch 1; None: no limit.
      max_exponent: of the growth of FLOPs, work and largest intermediate in time.
      max_source_bytes: of the candidate's source.
      max_operations: equations of the traced program at `train_time`: a Python loop over time is not compiled.
      known: fingerprint -> id of a candidate already tried.
    """

    width: int
    heads: int
    train_time: int
    allowed_imports: tuple[str, ...]
    train_batch: int = 4
    max_params: int | None = None
    max_flops_per_token: float | None = None
    max_state_bytes: int | None = None
    max_exponent: float = 1.2
    max_source_bytes: int = 65_536
    max_operations: int = 10_000
    known: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_imports", tuple(self.allowed_imports))  # JSON has lists only
        if self.train_time < 8:
            raise ValueError(f"train_time {self.train_time} is too short to look for leaks: at least 8")
        if self.train_batch < 1:
            raise ValueError(f"train_batch {self.train_batch} must be at least 1")
