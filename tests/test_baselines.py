"""The baselines' table: what its rows say, and one from real training."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSpace

from nas.cli import main
from nas.commands.baselines import Training, _trainings, markdown, summary
from nas.settings import BaselinesSettings, SearchSpaceSettings, Settings

SETTINGS = Settings(baselines=BaselinesSettings(seeds=3))
SMALL = [
    *("experiment=smoke", "execution.workers=1", "baselines.seeds=1"),
    "search_space.baselines=[linear_attention,softmax_attention]",
    *("model.width=16", "train.steps=4", "train.batch=2", "train.time=32", "task.validation_windows=4"),
]
OPENING = {"command": "nas baselines", "machine": "one core", "versions": {}, "minutes": 1.0}


def trained(bits_per_byte: float, gated: bool) -> dict[str, Any]:
    certificate = {"params": 4 * 64**2, "flops_per_token": 1e4, "state_bytes": 2048}
    fitness = {"bits_per_byte": bits_per_byte, "tokens_per_second": 1e4, "params": 99, "flops_per_token": 2e4}
    fitness["learning_rate"] = 0.004
    return {
        "certificate": certificate if gated else None,
        "rungs": [{"step": step, "bits_per_byte": bits_per_byte + (step < 256)} for step in (64, 128, 256)],
        "outcome": {"kind": "fitness", **fitness},
        "cost": {"total_seconds": 60.0},
    }


def found(trainings: list[Training], scores: dict[str, list[float]]) -> dict[str, Any]:
    return {t.key: trained(scores[t.candidate.name][t.seed], t.gated) for t in trainings}


SCORES = {  # `third` is .1 better than `strong` on every seed but for .01, and the seeds differ by more
    "strong": [2.0, 2.5, 3.0],
    "plain": [4.0, 4.0, 4.0],
    "third": [1.9, 2.41, 2.89],
    "attention": [1.0, 1.0, 1.0],
}


def test_each_is_trained_with_each_seed_and_gated_once() -> None:
    trainings = _trainings(SETTINGS, FakeSpace())
    names = [training.candidate.name for training in trainings]
    assert names == ["strong", "plain", "third", "attention"] * 3, "seed by seed, the reference first"
    assert [training.seed for training in trainings] == [0] * 4 + [1] * 4 + [2] * 4
    assert [t.candidate.name for t in trainings if t.gated] == ["strong", "plain", "third"]
    assert len({training.key for training in trainings}) == 12


def test_named_ones_alone_where_some_are_named() -> None:
    settings = Settings(search_space=SearchSpaceSettings(baselines=("third", "attention")))
    assert [training.candidate.name for training in _trainings(settings, FakeSpace())][:2] == ["third", "attention"]


def test_rows_in_the_order_of_their_means_with_paired_differences() -> None:
    trainings = _trainings(SETTINGS, FakeSpace())
    report = summary(SETTINGS, FakeSpace(), trainings, found(trainings, SCORES))
    assert [row["name"] for row in report["rows"]] == ["attention", "third", "strong", "plain"]
    attention, third, strong, _ = report["rows"]
    assert attention["outside"] and attention["mixer_params"] is None and attention["params"] == 99
    assert third["mixer_params"] == 4.0 and third["state_bytes"] == 2048
    assert strong["bits_per_byte"] == pytest.approx(2.5) and strong["range"] == pytest.approx(1.0)
    assert strong["stderr"] == pytest.approx(0.5 / 3**0.5) and strong["half_run"] == pytest.approx(3.5)
    assert strong["difference"] is None
    assert third["difference"]["mean"] == pytest.approx(-0.1) and third["difference"]["high"] < -0.07
    assert report["core_minutes"] == pytest.approx(12) and report["half_run_rank_correlation"] == pytest.approx(1)
    text = markdown({**OPENING, **report, "corpus": {"name": "stdlib", "sha256": "0" * 64}})
    assert (
        "| attention* | 1.0000 ± 0.0000 (n=3) | 0.0000 | 2.0000 | -1.5000 [-2.7421, -0.2579] | 0.004 |  | 99 |" in text
    )
    assert (
        "| strong | 2.5000 ± 0.2887 (n=3) | 1.0000 | 3.5000 |  | 0.004 | 4.00 | 99 | 20,000 | 2,048 | 10,000 |" in text
    )


@pytest.mark.parametrize("seed", [0, 2])
def test_a_failure_is_words_and_comes_last(seed: int) -> None:
    trainings = _trainings(SETTINGS, FakeSpace())
    results = found(trainings, SCORES)
    key = next(training.key for training in trainings if training.candidate.name == "third" and training.seed == seed)
    results[key] = {"outcome": {"kind": "crashed", "cause": "engine", "reason": "Traceback\n  x\nKeyError: 'a|b'"}}
    report = summary(SETTINGS, FakeSpace(), trainings, results)
    assert [row["name"] for row in report["rows"]] == ["attention", "strong", "plain", "third"]
    assert report["rows"][-1]["bits_per_byte"] is None, "a mean over the other seeds would not compare"
    text = markdown({**OPENING, **report, "corpus": {"name": "stdlib", "sha256": "0" * 64}})
    assert "| third | crashed, engine: KeyError: 'a\\|b' |" in text


def test_one_seed_and_no_reference_leave_no_interval() -> None:
    names = SearchSpaceSettings(baselines=("third", "plain"))
    settings = Settings(search_space=names, baselines=BaselinesSettings(seeds=1))
    trainings = _trainings(settings, FakeSpace())
    report = summary(settings, FakeSpace(), trainings, found(trainings, SCORES))
    json.dumps(report, allow_nan=False)
    assert [(row["stderr"], row["difference"]) for row in report["rows"]] == [(None, None)] * 2
    assert report["half_run_rank_correlation"] is None
    assert "| third | 1.9000 (n=1) |" in markdown({**OPENING, **report, "corpus": {"name": "x", "sha256": "0"}})


def test_a_table_from_real_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for number in range(60):
        words = [f"line {line} of file {number}: the state keeps what the keys wrote\n" for line in range(200)]
        (text / f"{number:02d}.txt").write_text("".join(words))
    command = ["baselines", *SMALL, "corpus=text", f"path={text}", f"results_dir={tmp_path}"]
    assert main(command) == 0
    report = json.loads((tmp_path / "baselines.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert rows.keys() == {"linear_attention", "softmax_attention"}
    assert all(row["failure"] is None and row["by_seed"].keys() == {"0"} for row in rows.values()), rows
    assert rows["linear_attention"]["state_bytes"] > 0 and rows["softmax_attention"]["mixer_params"] is None
    assert all(row["half_run"] != row["bits_per_byte"] < 8.5 for row in rows.values()), "8 bits: nothing learned"
    assert f"sha256 {report['corpus']['sha256'][:16]}" in (tmp_path / "baselines.md").read_text()
    assert "(n=1)" in capfd.readouterr().out
