"""A trained candidate as a model of lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

The only importer of `lm_eval` (extra `harness`). Tasks, few-shot prompts and metrics are the harness's own; what the
model answers comes from a contained process (`nas.answering`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nas.errors import UserError

_START = "\n"  # stands before text that has nothing before it: each first token needs something to follow
_MOST_WRITTEN = 256  # tokens of a continuation, where the task gives no number


class HarnessError(UserError):
    """A task can't be run. The message is one sentence that says what to do."""


@dataclass(frozen=True)
class Answerer:
    """Who answers.

    Attributes:
      ask: requests of `nas.answering` -> their answers (`Likelihood` or `Continuation` of `nas.reports`).
      encode, decode: between text and the model's tokens.
      time: tokens of the model's window.
    """

    ask: Callable[[list[dict[str, Any]]], list[Any]]
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    time: int


class CandidateModel(LM):  # type: ignore[misc]
    """The three questions that the harness asks of a model."""

    def __init__(self, answerer: Answerer):
        super().__init__()
        self._answerer = answerer

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        asked = []
        for context, continuation in (request.args for request in requests):
            before = self._answerer.encode(context or _START)
            asked.append({"tokens": before + self._answerer.encode(continuation), "first": len(before)})
        return [(answer.nats, answer.greedy) for answer in self._answerer.ask(asked)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        asked, ends = list[dict[str, Any]](), [0]
        start = self._answerer.encode(_START)[-1]
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self._answerer.encode(text), start, self._answerer.time, context_len=1)
            for before, after in map(make_disjoint_window, windows):
                asked.append({"tokens": [*before, *after], "first": len(before)})
            ends.append(len(asked))
        nats = [answer.nats for answer in self._answerer.ask(asked)]
        return [float(sum(nats[first:last])) for first, last in pairwise(ends)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        asked = []
        for context, options in (request.args for request in requests):
            ends = options.get("until") or []
            asked.append(
                {
                    "tokens": self._answerer.encode(context or _START),
                    "until": [self._answerer.encode(end) for end in ([ends] if isinstance(ends, str) else ends)],
                    "most": int(options.get("max_gen_toks", _MOST_WRITTEN)),
                }
            )
        return [self._answerer.decode(answer.tokens) for answer in self._answerer.ask(asked)]


def evaluate(
    answerer: Answerer, tasks: Sequence[str], include: Path | None = None, limit: int | None = None
) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, standard errors among them, as the harness names them.

    Args:
      tasks: names that the harness knows, or that files in the folder `include` define.
      limit: so many documents of each task; None for all.

    Raises:
      HarnessError: if a task is not known, or its data can't be had.
    """
    manager = TaskManager(include_path=str(include) if include else None)
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise HarnessError(f"the harness knows no task {unknown[0]}: --include DIR has task files of your own")
    try:
        found: Any = simple_evaluate(
            model=CandidateModel(answerer), tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False
        )
    except (OSError, ValueError) as error:  # a connection that can't be made is an OSError too
        raise HarnessError(f"{', '.join(tasks)} can't be run: {' '.join(str(error).split())}") from error
    return {task: _numbers(values) for task, values in found["results"].items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {
        name.removesuffix(",none"): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
