"""Asynchronous successive halving that knows baselines, and that can be refilled from a journal."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from nas.types import Rung

STOP = TrialScheduler.STOP
STEP, METRIC, DECIDED = "rung_step", "bits_per_byte", "decided"  # of a result


class Halving(ASHAScheduler):
    """ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) over the rungs of a search.

    Baselines are measured at each rung, so that candidates compete with them, but are never stopped. Fresh seeds of a
    contender neither compete nor stop. A trial that lost its worker comes back as another one of Tune's: it is known by
    its own name, so that it stands on a rung once.
    """

    def __init__(self, steps: int, first_rung: int, reduction_factor: float):
        self._steps = steps
        super().__init__(
            time_attr=STEP,
            metric=METRIC,
            mode="min",
            max_t=steps + 1,
            grace_period=first_rung,
            reduction_factor=reduction_factor,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _by_its_name(trial))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, _by_its_name(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_remove(tune_controller, _by_its_name(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        purpose = trial.config["purpose"]
        if purpose == "confirm":
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, _by_its_name(trial), result)
        # At the last rung a trial ends by itself, with its outcome. From a rung below its checkpoint a resumed trial
        # has gone on already: it stands there, and is not asked again.
        may_stop = purpose == "search" and result[STEP] < self._steps and not result.get(DECIDED)
        return decision if may_stop else TrialScheduler.CONTINUE

    def refill(self, rungs: Mapping[str, Sequence[Rung]]) -> None:
        """Puts what earlier trials measured back on the rungs: Ray keeps them nowhere."""
        for trial, measured in rungs.items():
            stand_in: Any = SimpleNamespace(config={"trial": f"earlier-{trial}", "purpose": "baseline"})
            self.on_trial_add(None, stand_in)  # type: ignore[arg-type]  # the controller is not looked at
            for rung in measured:
                self.on_trial_result(None, stand_in, {STEP: rung.step, METRIC: rung.bits_per_byte})


def _by_its_name(trial: Any) -> Any:
    return SimpleNamespace(trial_id=trial.config["trial"])
