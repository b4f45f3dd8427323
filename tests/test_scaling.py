"""The simulation of a fleet: virtual time, no trial lost or counted twice, and a report that says what was found."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from fakes import FakeSpace, make_settings

from nas import journal
from nas.scaling.driver import Costs, Fleet, Found, simulated
from nas.scaling.report import bottleneck, markdown, percentile, row_of
from nas.scaling.timeline import Timeline, busy_share
from nas.scaling.tune import Loop, line
from nas.settings import ExecutionSettings, LlmSettings, ProposerSettings, TrackingSettings
from nas.space import load_space

FREE = Costs(actor=0.0, reset=0.0, gate=5.0)


def settings(trials=200, **changes):
    base = make_settings("ducb", trials=trials, confirm_seeds=1, noise_seeds=1)
    return replace(base, tracking=TrackingSettings("none"), execution=ExecutionSettings(), **changes)


def searched(folder, workers, costs=FREE, pending=None, **changes):
    found = simulated(settings(**changes), FakeSpace(values=1000), Fleet(workers, 300.0, pending), costs, folder)
    return found, journal.read(folder / "journal.jsonl")


def counted_second_by_second(worked, accelerators, start, end):
    """The slow definition: of all seconds of all accelerators, those in which one works."""
    busy = sum(since <= second + 0.5 < till for second in range(start, end) for since, till in worked)
    return busy / (accelerators * (end - start))


class TestBusyShare:
    def test_by_hand(self):
        assert busy_share([(0, 10), (0, 5), (7, 10)], 2, 0, 10) == 18 / 20
        assert busy_share([(0, 10), (5, 15)], 2, 5, 10) == 1.0, "of an interval, what is within"
        assert busy_share([(0, 1)], 4, 0, 0) == 0.0

    def test_as_counted_second_by_second(self):
        worked = [(0, 7), (3, 9), (9, 30), (8, 12), (14, 19), (25, 40)]
        for start, end in ((0, 40), (5, 20), (9, 10), (38, 60)):
            assert busy_share(worked, 3, start, end) == pytest.approx(counted_second_by_second(worked, 3, start, end))


def test_what_waited_for_the_driver_happens_when_it_comes_to_it():
    timeline, seen = Timeline(), []
    for time, name in ((3.0, "later"), (1.0, "first"), (1.0, "second")):
        timeline.put(time, lambda name=name: seen.append((name, timeline.now)))
    timeline.next()()
    timeline.now += 5.0  # the driver was busy
    timeline.next()()
    timeline.next()()
    assert seen == [("first", 1.0), ("second", 6.0), ("later", 6.0)] and timeline.next() is None


class TestSimulated:
    def test_no_trial_is_lost_or_counted_twice(self, tmp_path):
        found, events = searched(tmp_path, 50)
        asked = [event["trial"] for event in events if event["event"] == "ask"]
        ended = [event["id"] for event in events if event["event"] == "trial"]
        assert sorted(asked) == sorted(ended) and len(set(asked)) == len(asked) == found.trials
        proposed = [e for e in events if e["event"] == "ask" and e["purpose"] == "search" and not e["duplicate"]]
        assert len(proposed) == 200
        rungs = Counter((event["trial"], event["step"]) for event in events if event["event"] == "rung")
        assert set(rungs.values()) == {1}
        assert found.journal_bytes == (tmp_path / "journal.jsonl").stat().st_size and found.events == len(events)

    def test_accelerators_work_no_more_than_there_are(self, tmp_path):
        found, _ = searched(tmp_path, 8, trials=60)
        moments = sorted({time for interval in found.worked for time in interval})
        for moment in moments:
            assert sum(since <= moment < till for since, till in found.worked) <= 8
        assert 0.9 < found.busy <= 1.0 and found.busy_whole < found.busy

    def test_with_one_worker_the_journal_is_the_same_each_time(self, tmp_path):
        kinds = [
            [
                (event["event"], event.get("trial") or event.get("id"))
                for event in searched(tmp_path / name, 1, trials=30)[1]
            ]
            for name in ("one", "other")
        ]
        assert kinds[0] == kinds[1]

    def test_what_the_driver_takes_keeps_accelerators_waiting(self, tmp_path):
        quick, _ = searched(tmp_path / "quick", 20, trials=100)
        slow, _ = searched(tmp_path / "slow", 20, replace(FREE, turn=20.0), trials=100)
        assert slow.busy < 0.6 < 0.9 < quick.busy
        assert slow.waited > quick.waited and bottleneck(row_of("slow", slow, 1.0)) == "the driver: Tune"

    def test_workers_that_start_one_at_a_time(self, tmp_path):
        costs = replace(FREE, actor=60.0)
        at_once, _ = searched(tmp_path / "once", 20, costs, trials=60)
        by_one, _ = searched(tmp_path / "one", 20, costs, pending=1, trials=60)
        assert by_one.full_from > 19 * 60 > at_once.full_from

    def test_a_team_of_models_keeps_up_if_it_may_work_as_far_ahead(self, tmp_path):
        pytest.importorskip("rapidfuzz")
        shares = {}
        for ahead in (1, 24):
            llm = LlmSettings(models=("simulated",), concurrency=ahead, ahead=ahead, analyst=False)
            chosen = settings(24, llm=llm, proposer=ProposerSettings("llm"))
            space = load_space(chosen.search_space.module)
            found = simulated(chosen, space, Fleet(10, 30.0), FREE, tmp_path / str(ahead))
            events = journal.read(tmp_path / str(ahead) / "journal.jsonl")
            assert sum(event["event"] == "completion" for event in events) == sum(found.llm_calls.values())
            assert found.by["llm"] > 12 and found.tokens["researcher in"] > 1000 * found.by["llm"]
            shares[ahead] = found.busy
        assert shares[1] < 0.3 < 0.6 < shares[24]


class TestReport:
    def test_it_says_what_was_found(self, tmp_path):
        found, _ = searched(tmp_path, 4, trials=20)
        row = row_of("grammar", found, 1.0)
        loops = [
            {"workers": 2, "trials": 9, "results": 10, "seconds": 1.0, "cpu": 0.5, "ours": 0.2, "bytes_per_trial": 9.0}
        ]
        report = {
            "command": "python -m nas.scaling",
            "machine": "a machine",
            "versions": {},
            "minutes": 1.0,
            "rows": [row],
            "loops": loops,
            "costs": {"turn": 0.03, "turn_per_worker": 0.0},
            "stores": {"sqlite": {"writes": 3, "seconds": 0.1, "cpu": 0.01}},
        }
        text = markdown(json.loads(json.dumps(report)))
        assert f"| grammar | 5 min | 4 | {found.trials} |" in text and f"{found.busy:.1%}" in text
        assert "python -m nas.scaling" in text and "33 results a second" in text

    def test_percentile(self):
        assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0 and percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0

    def test_the_line_through_loops(self):
        loops = [Loop(workers, 1, 10, 1.0, 0.1 * (2 + workers), 0.0, 0.0) for workers in (2, 8)]
        turn, each = line(loops)
        assert (turn, each) == (pytest.approx(0.02), pytest.approx(0.01))
        assert line([replace(loops[0], cpu=0.5), loops[1]])[1] >= 0.0


def test_a_search_is_not_busy_before_it_began():
    assert Found(Fleet(2, 1.0)).busy == 0.0 and Found(Fleet(2, 1.0)).busy_whole == 0.0
