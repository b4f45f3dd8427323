"""Between Ray Tune and the search: nothing blocks, nothing is lost, and halving goes on where it was."""

import json
import pickle
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from fakes import make_settings, start
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from nas.execution.ask_tell import MOST_LOSSES, AskTell, EndOfSearch, Losses
from nas.execution.scheduler import DECIDED, METRIC, STEP, Halving
from nas.execution.tune import ExecutionError, _ray, _resources, _workers
from nas.execution.worker import TrialWorker
from nas.preemption import Preempted
from nas.sandbox import Box, Limits
from nas.settings import ExecutionSettings
from nas.trial import TrialSpec
from nas.types import Crashed, Fitness, Rung

SPEC = TrialSpec(
    source="",
    gate=None,
    gate_seconds=1.0,
    memory_bytes=1,
    accelerator=False,
    model={},
    train={},
    corpus={},
    vocabulary=256,
    dtype="uint8",
    device_bytes=0,
    validation_windows=1,
    rungs=[10, 40],
    floor=None,
    contends_below=None,
    tolerance=0.01,
    fitness="bits_per_byte",
    folder="/nowhere",
)
MEASURED = {
    "step": 10,
    "bits_per_byte": 3.0,
    "stderr": 0.1,
    "train_seconds": 2.0,
    "tokens_per_second": 100.0,
    "flops_per_token": 5.0,
    "params": 7,
    "peak_bytes": 9,
}
COST = {"gate_seconds": 1.0, "train_seconds": 2.0, "total_seconds": 3.0}
OUTCOME = {"kind": "fitness", "score": -3.0, "probes": {}} | {
    name: value for name, value in MEASURED.items() if name != "train_seconds"
}


def trial(name, purpose="search"):
    return SimpleNamespace(trial_id=name, config={"trial": name, "purpose": purpose})


def result(step, bits_per_byte, decided=False):
    return {STEP: step, METRIC: bits_per_byte, DECIDED: decided}


def rung_result(**changes):
    return {"event": json.dumps({"rung": MEASURED, "cost": COST, **changes}), "certificate": "null"}


def halving(*seen):
    """A scheduler on whose first rung these have been measured."""
    scheduler = Halving(steps=40, first_rung=10, reduction_factor=2)
    scheduler.refill({str(number): [Rung(10, value)] for number, value in enumerate(seen)})
    return scheduler


def decide(scheduler, name, step, value, purpose="search", decided=False):
    candidate = trial(name, purpose)
    if not hasattr(scheduler, "added"):
        scheduler.added = set()
    if name not in scheduler.added:
        scheduler.added.add(name)
        scheduler.on_trial_add(None, candidate)
    return scheduler.on_trial_result(None, candidate, result(step, value, decided))


class TestHalving:
    def test_a_candidate_competes_with_what_an_earlier_run_measured(self):
        assert decide(halving(2.0, 3.0), "worse", 10, 2.9) == TrialScheduler.STOP
        assert decide(halving(2.0, 3.0), "better", 10, 2.1) == TrialScheduler.CONTINUE

    @pytest.mark.parametrize("purpose", ["baseline", "confirm"])
    def test_baselines_and_confirmations_are_never_stopped(self, purpose):
        assert decide(halving(2.0, 3.0), "bad", 10, 9.0, purpose) == TrialScheduler.CONTINUE

    def test_baselines_stand_on_the_rungs_and_confirmations_do_not(self):
        scheduler = halving()
        decide(scheduler, "baseline", 10, 2.0, "baseline")
        assert decide(scheduler, "candidate", 10, 2.5) == TrialScheduler.STOP
        scheduler = halving()
        decide(scheduler, "confirmation", 10, 2.0, "confirm")
        assert decide(scheduler, "candidate", 10, 2.5) == TrialScheduler.CONTINUE

    def test_a_trial_that_lost_its_worker_stands_on_a_rung_once(self):
        scheduler = halving(2.0, 3.0)
        first, second = (SimpleNamespace(trial_id=x, config={"trial": "t7", "purpose": "search"}) for x in "ab")
        scheduler.on_trial_add(None, first)
        assert scheduler.on_trial_result(None, first, result(10, 1.0)) == TrialScheduler.CONTINUE
        scheduler.on_trial_add(None, second)
        assert scheduler.on_trial_result(None, second, result(10, 9.0)) == TrialScheduler.CONTINUE, "it was decided"
        assert decide(scheduler, "other", 10, 1.9) == TrialScheduler.CONTINUE, "of 1.0, 1.9, 2.0, 3.0 the second"

    def test_a_rung_below_the_checkpoint_is_not_decided_again(self):
        scheduler = halving(2.0, 3.0)
        assert decide(scheduler, "resumed", 10, 9.0, decided=True) == TrialScheduler.CONTINUE
        assert decide(scheduler, "other", 10, 5.0) == TrialScheduler.STOP, "but it stands there"

    def test_the_last_rung_is_for_the_trial_to_end_at(self):
        scheduler = halving()
        assert decide(scheduler, "first", 40, 2.0) == TrialScheduler.CONTINUE
        assert decide(scheduler, "worse", 40, 3.0) == TrialScheduler.CONTINUE


@pytest.fixture
def ask_tell():
    search, events = start(make_settings(trials=3, confirm_seeds=0, noise_seeds=0))
    return AskTell(search, lambda assignment: SPEC, workers=2, constants={"cpus": 1}), search, events


def suggested(ask_tell, name, patience=5.0):
    deadline = time.monotonic() + patience
    while (config := ask_tell.suggest(name)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return config


class TestAskTell:
    def test_a_slow_proposer_holds_nobody_up(self, ask_tell, monkeypatch):
        asker, search, _ = ask_tell
        asked = search.ask
        monkeypatch.setattr(search, "ask", lambda: (time.sleep(0.5), asked())[1])
        started = time.monotonic()
        assert asker.suggest("a") is None
        assert time.monotonic() - started < 0.1
        assert suggested(asker, "a")["trial"] == "t0000"

    def test_no_more_trials_than_workers(self, ask_tell):
        asker, _, _ = ask_tell
        assert suggested(asker, "a") and suggested(asker, "b")
        assert suggested(asker, "c", patience=0.2) is None

    def test_a_trial_that_the_scheduler_stopped_keeps_what_its_last_rung_measured(self, ask_tell):
        asker, search, _ = ask_tell
        suggested(asker, "a")
        asker.on_trial_result("a", rung_result())
        asker.on_trial_complete("a", rung_result())
        told = search.trials["t0000"]
        assert isinstance(told.outcome, Fitness) and told.outcome.step == 10
        assert told.stopped and told.cost.gate_seconds == 1.0 and len(told.rungs) == 1

    def test_what_troubles_a_worker_is_told_once(self):
        said = []
        search, _ = start(make_settings(trials=3, confirm_seeds=0, noise_seeds=0))
        asker = AskTell(search, lambda assignment: SPEC, workers=2, constants={"cpus": 1}, say=said.append)
        suggested(asker, "a")
        for step in (10, 40):
            asker.on_trial_result("a", rung_result(rung={**MEASURED, "step": step}, trouble="the store is away"))
        assert said == ["the store is away"] and len(search.rungs_of("t0000")) == 2

    def test_a_lost_worker_is_no_evidence(self, ask_tell):
        asker, search, events = ask_tell
        suggested(asker, "first")
        asker.on_trial_result("first", rung_result())
        for loss in range(MOST_LOSSES + 1):
            name = f"attempt {loss}"
            asker.on_trial_complete(name if loss else "first", None, error=True)
            assert "t0000" not in search.trials, "why is told next"
            asker.lost(name if loss else "first", "its worker was lost", noticed=False)
            if loss < MOST_LOSSES:
                config = suggested(asker, f"attempt {loss + 1}")
                assert config["trial"] == "t0000", "the same once more"
        outcome = search.trials["t0000"].outcome
        assert isinstance(outcome, Crashed) and outcome.cause == "infrastructure"
        assert outcome.reason == f"its worker was lost, {MOST_LOSSES + 1} times in all"
        assert [event["trial"] for event in events if event["event"] == "lost"] == ["t0000"] * MOST_LOSSES
        assert suggested(asker, "other")["trial"] == "t0001"

    def test_what_had_notice_is_not_counted(self, ask_tell):
        asker, search, _ = ask_tell
        for attempt in range(9):
            assert suggested(asker, str(attempt))["trial"] == "t0000"
            asker.lost(str(attempt), "its machine is being taken away, with notice", noticed=True)
        suggested(asker, "last")
        asker.on_trial_result("last", rung_result())
        asker.on_trial_complete(
            "last", {"event": json.dumps({"outcome": OUTCOME, "cost": COST}), "certificate": "null"}
        )
        assert isinstance(search.trials["t0000"].outcome, Fitness)

    def test_what_is_lost_while_the_search_is_stopping_is_left_for_a_resume(self, ask_tell):
        asker, search, events = ask_tell
        suggested(asker, "a")
        search.stop("interrupted")
        asker.lost("a", "its worker was lost", noticed=False)
        assert not search.trials and not asker.running and events[-1]["event"] != "lost"

    def test_what_finishes_while_the_search_is_stopping_is_kept_and_the_rest_left_for_a_resume(self, ask_tell):
        asker, search, _ = ask_tell
        suggested(asker, "a")
        suggested(asker, "b")
        search.stop("interrupted")
        assert EndOfSearch(asker).stop_all()
        asker.on_trial_complete("a", {"event": json.dumps({"outcome": OUTCOME, "cost": COST}), "certificate": "null"})
        asker.on_trial_complete("b", rung_result())
        assert search.trials.keys() == {"t0000"}
        assert asker.suggest("c") in (None, Searcher.FINISHED)

    def test_a_journal_that_can_not_be_written_ends_the_search_with_its_error(self, ask_tell, monkeypatch):
        asker, search, _ = ask_tell
        suggested(asker, "a")
        monkeypatch.setattr(search, "tell", lambda trial: (_ for _ in ()).throw(OSError("disk full")))
        asker.on_trial_complete("a", rung_result())
        assert isinstance(asker.failure, OSError)
        assert asker.suggest("b") == Searcher.FINISHED and asker.halting

    @pytest.mark.parametrize(
        ("error", "reason", "noticed"),
        [
            (ActorDiedError(), "its worker was lost", False),
            (RayActorError("", "The actor died because its node has died."), "its node was lost", False),
            (RayActorError("", "The actor died because its node has died.", preempted=True), "its node was lost", True),
            (RayTaskError("step", "", Preempted(True)), "its machine is being taken away, with notice", True),
            (RayTaskError("step", "", Preempted(False)), "its machine is being taken away, with notice", False),
            (RayTaskError("step", "", ValueError("so")), "its worker failed: ValueError so", False),
            (None, "its worker was lost", False),
        ],
    )
    def test_how_a_worker_was_lost_is_told(self, tmp_path, error, reason, noticed):
        told = []
        asker = SimpleNamespace(lost=lambda *words: told.append(words))
        file = tmp_path / "error.pkl"
        if error:
            file.write_bytes(pickle.dumps(error))
        Losses(asker).on_trial_error(0, [], SimpleNamespace(trial_id="a", pickled_error_file=str(file)))
        assert told == [("a", reason, noticed)]

    def test_it_can_be_pickled_as_tune_does(self, ask_tell):
        pickle.dumps(ask_tell[0])


class SlowBox:
    """A box whose one call is under way."""

    def __init__(self, running: bool):
        self.running, self.notices = running, 0

    def give_notice(self) -> bool:
        self.notices += self.running
        return self.running


class TestWorker:
    @pytest.fixture
    def worker(self, monkeypatch):
        """One that is told of a rung and then of an outcome."""
        worker = TrialWorker.__new__(TrialWorker)
        worker._noticed, worker._box = False, SlowBox(running=True)
        self.ended = []
        worker._without_work = lambda *_: self.ended.append("as ever")
        crashed = {"outcome": {"kind": "crashed", "cause": "killed", "reason": "by a signal"}}
        worker._messages = iter([{"rung": MEASURED, "decided": False}, crashed])
        before = signal.signal(signal.SIGTERM, worker._take_notice)
        yield worker
        signal.signal(signal.SIGTERM, before)

    def test_what_comes_of_a_notice_is_no_outcome(self, worker):
        signal.raise_signal(signal.SIGTERM)
        assert worker._box.notices == 1 and not self.ended
        assert worker.step()[STEP] == MEASURED["step"], "a measurement is one"
        with pytest.raises(Preempted, match="being taken away"):
            worker.step()

    def test_an_outcome_without_notice_is_one(self, worker):
        worker.step()
        assert worker.step()["done"]

    def test_a_contained_process_that_had_notice_first_is_believed(self, worker):
        worker._messages = iter([{"outcome": {"kind": "crashed", "cause": "preempted", "reason": "at step 9"}}])
        with pytest.raises(Preempted) as raised:
            worker.step()
        assert not raised.value.noticed

    def test_without_work_it_ends(self, worker):
        worker._box.running = False
        signal.raise_signal(signal.SIGTERM)
        assert self.ended == ["as ever"]

    def test_the_second_notice_ends_it(self, worker):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert self.ended == ["as ever"] and worker._box.notices == 1


def cluster_of(monkeypatch, *machines):
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99, "GPU": 99, "TPU": 99}}])
    monkeypatch.setattr("nas.execution.tune._trials_in_memory", lambda: 64)


@pytest.mark.parametrize(
    ("machines", "settings", "workers"),
    [
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0.25}, 8),
        ([{"CPU": 8, "GPU": 2}], {"gpus_per_trial": 0.4}, 4),  # two on each
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 3}], {"gpus_per_trial": 2}, 3),
        ([{"CPU": 8, "TPU": 4}] * 3, {"tpus_per_trial": 4}, 3),
        ([{"CPU": 4}], {"workers": 2}, 2),
        ([{"CPU": 3}], {}, 3),
        ([{"CPU": 0}], {"address": "auto", "workers": 64}, 64),
    ],
)
def test_as_many_workers_as_the_cluster_has_room_for(machines, settings, workers, monkeypatch):
    cluster_of(monkeypatch, *machines)
    execution = ExecutionSettings(**settings)
    assert _workers(execution, _resources(execution)) == workers


@pytest.mark.parametrize(
    ("machines", "have"), [([{"CPU": 4}], "4 CPU, 0 GPU"), ([{"CPU": 4, "GPU": 1}] * 2, "4 CPU, 1 GPU")]
)
def test_a_cluster_without_room_for_one_trial_is_an_error(machines, have, monkeypatch):
    """Also one whose machines have enough only together: Ray would wait for ever."""
    cluster_of(monkeypatch, *machines)
    with pytest.raises(ExecutionError, match=f"needs 1 CPU, 2 GPU and no machine of the cluster has more than {have}"):
        _workers(ExecutionSettings(), {"CPU": 1, "GPU": 2})


@pytest.mark.faults  # a Ray of its own, which a busy machine does not start in time
def test_the_gpus_that_ray_gives_a_worker_are_those_of_its_candidates(tmp_path, monkeypatch):
    """Ray counts what it is told of: there need be no GPU."""

    tests = str(Path(__file__).parent)

    @ray.remote(num_cpus=0.1)
    def seen(folder, gpus):
        sys.path.append(tests)  # Ray's workers have their own
        box = Box(("contained",), tier="limits", root=Path(folder), gpus=gpus)
        try:
            *_, last = box.run("contained:environment", {}, Path(folder) / "a", Limits(60))
        finally:
            box.close()
        assert "result" in last, last
        return last["result"]

    monkeypatch.setattr("ray.init", partial(ray.init, num_gpus=4))
    with _ray(ExecutionSettings()):
        whole = seen.options(num_gpus=2).remote(str(tmp_path / "whole"), 2)
        share = seen.options(num_gpus=0.25).remote(str(tmp_path / "share"), 0.25)
        whole, share = ray.get([whole, share])
    assert len(set(whole["CUDA_VISIBLE_DEVICES"].split(","))) == 2 and "XLA_CLIENT_MEM_FRACTION" not in whole
    assert len(share["CUDA_VISIBLE_DEVICES"].split(",")) == 1 and share["XLA_CLIENT_MEM_FRACTION"] == "0.2250"
    assert not [name for name in (*whole, *share) if name.startswith("RAY_")]


@pytest.mark.parametrize("failures", [1, 3, 4])
def test_a_ray_that_does_not_come_up_is_started_again(failures, monkeypatch):
    tried = []

    def init(**options):
        tried.append(options)
        if len(tried) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("nas.execution.tune._PAUSE_SECONDS", 0.0)
    if failures < 4:
        with _ray(ExecutionSettings()):
            pass
    else:
        with pytest.raises(ExecutionError, match=r"4 times: .* timed out during startup"), _ray(ExecutionSettings()):
            pass
    assert len(tried) == min(failures + 1, 4)
