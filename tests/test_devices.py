"""Several devices of one process compute what one does, and what one has kept the others go on with.

There is no accelerator here: XLA makes four devices of the processor.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from common import SPACE, ungated_spec

from nas.devices import ONE, DevicesError, spread
from nas.sandbox import Box, Limits
from nas.settings import ModelSettings, Settings, TrainSettings
from nas.tasks.corpus import Corpus
from nas.trial import ANY, PRELOAD, TrialSpec, run_trial

SOURCE = SPACE.baselines()["linear_attention"].source
MODEL = ModelSettings(width=16, heads=2, layers=1)
TRAIN = TrainSettings(steps=24, batch=8, time=32, learning_rate=1e-2, grid=(1.0,), steps_per_dispatch=6)
RUNS = {  # devices, devices after a stop at the second rung, parts of a batch
    "one": (1, None, 1),
    "two": (2, None, 1),
    "four": (4, None, 1),
    "two, then one": (2, 1, 1),
    "one, then four": (1, 4, 1),
    "two, in parts": (2, None, 4),
}
CLOSE = 2e-4  # relative: sums in another order, over two dozen steps


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box whose children have four devices, as one has whose worker was given four accelerators."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
        patch.setenv("JAX_PLATFORMS", "cpu")
        box = Box((*PRELOAD, *sorted(SPACE.allowed_imports), "several"), root=tmp_path_factory.getbasetemp())
        box.start()
    yield box
    box.close()


def called(box: Box, function: str, corpus: Corpus, folder: Path, **arguments: object) -> object:
    files = {split: corpus.file(split) for split in ("train", "validation")}
    limits = Limits(seconds=300, accelerator=True)
    *_, last = box.run(f"several:{function}", {"train": asdict(TRAIN), **arguments}, folder, limits, files)
    assert "result" in last, last
    return last["result"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are found again."""
    return tmp_path_factory.mktemp("several") / "train"


@pytest.fixture(scope="module")
def trained(four: Box, corpus: Corpus, folder: Path) -> dict[str, dict[str, list]]:
    return called(four, "train_each", corpus, folder, source=SOURCE, model=asdict(MODEL), runs=RUNS)


def spec(corpus: Corpus, folder: Path, **changes: object) -> TrialSpec:
    settings = replace(Settings(), model=MODEL, train=TRAIN)
    made = ungated_spec(SOURCE, settings, corpus, folder, rungs=[6, 12, 24], contends_below=ANY)
    return replace(made, accelerator=True, validation_windows=10, **changes)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "one"])
def test_it_computes_what_one_device_does(name: str, trained: dict[str, dict[str, list]]) -> None:
    one, several = trained["one"], trained[name]
    assert [rung["step"] for rung in several["rungs"]] == [6, 12, 24]
    for here, there in zip(several["rungs"], one["rungs"], strict=True):
        for measure in ("bits_per_byte", "stderr", "params", "flops_per_token"):
            assert here[measure] == pytest.approx(there[measure], rel=CLOSE)
    assert several["parameters"] == pytest.approx(one["parameters"], rel=100 * CLOSE, abs=CLOSE)
    assert one["rungs"][-1]["bits_per_byte"] < one["rungs"][0]["bits_per_byte"] - 0.5, "it did learn"


def test_what_several_devices_trained_is_rescored_by_one(
    four: Box, corpus: Corpus, trained: dict[str, dict[str, list]], tmp_path: Path
) -> None:
    *rungs, last = run_trial(spec(corpus, tmp_path / "t0", devices=2), four)
    outcome = last["outcome"]
    assert outcome["kind"] == "fitness" and outcome["held_out_bits_per_byte"] > 0, outcome
    assert outcome["bits_per_byte"] == pytest.approx(trained["one"]["rungs"][-1]["bits_per_byte"], rel=CLOSE)
    assert [message["rung"]["step"] for message in rungs] == [6, 12, 24]


def test_repeated_trainings_are_spread_too(
    four: Box, corpus: Corpus, trained: dict[str, dict[str, list]], folder: Path
) -> None:
    checkpoints = folder / "repeated"
    arguments = {
        "source": SOURCE,
        "model": asdict(MODEL),
        "train": asdict(TRAIN),
        "dtype": corpus.dtype,
        "device_bytes": 0,
        "accelerator": True,
        "devices": 2,
        "checkpoints": str(checkpoints),
        "runs": [{"name": "a", "seed": 0, "learning_rate": TRAIN.learning_rate}],
    }
    files = {"train": corpus.file("train"), "token_bytes": corpus.token_bytes}
    *_, last = four.run("nas.repeated:boxed", arguments, folder, Limits(300, accelerator=True), files)
    assert last["result"] == {"trained": True}
    from several import values  # in this process, which has one device

    assert values(checkpoints / "a") == pytest.approx(trained["one"]["parameters"], rel=100 * CLOSE, abs=CLOSE)


def test_every_device_is_fed_its_share(four: Box, corpus: Corpus, tmp_path: Path) -> None:
    """From the file, and from tokens that each of them has."""
    fed = called(four, "feed_each", corpus, tmp_path / "feed")
    assert len(fed) == 12
    for windows in fed:
        assert windows["same"]
        assert windows["rows"] == [TRAIN.batch // windows["devices"]] * windows["devices"]


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (3, "8 windows can't be shared out equally among 3 devices: make train.batch / train.accumulate a multiple"),
        (8, "a trial has 8 accelerators and its process sees 4"),
    ],
)
def test_what_can_not_be_spread_is_an_outcome(
    devices: int, reason: str, four: Box, corpus: Corpus, tmp_path: Path
) -> None:
    *_, last = run_trial(spec(corpus, tmp_path / "t0", devices=devices), four)
    assert last["outcome"]["cause"] == "devices" and last["outcome"]["reason"].startswith(reason)


def test_all_that_a_process_sees_are_used_where_no_number_is_known(four: Box, corpus: Corpus, tmp_path: Path) -> None:
    assert called(four, "count", corpus, tmp_path / "count") == 4
    *_, last = run_trial(spec(corpus, tmp_path / "t0", devices=None, train={**asdict(TRAIN), "batch": 6}), four)
    assert "6 windows can't be shared out equally among 4 devices" in last["outcome"]["reason"]


def test_one_device_is_said_nothing_of() -> None:
    assert spread(1, 3) is ONE and spread(None, 3) is ONE
    assert ONE.placed(ONE.whole, ONE.shared(1), outputs=ONE.whole) == {}
    with pytest.raises(DevicesError, match="a trial has 2 accelerators and its process sees 1"):
        spread(2, 4)
