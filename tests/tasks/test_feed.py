"""The same batches whichever way they come, as a function of (seed, step) alone."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.settings import TrainSettings
from nas.tasks.feed import Feed, batches, held_out_windows, is_resident, window_starts
from nas.tasks.reader import let_go, read_tokens

SETTINGS = TrainSettings(steps=12, batch=3, time=16, seed=5)
DTYPES = {"uint8": 256, "uint16": 50_257, "uint32": 100_000}


@pytest.fixture(scope="module", params=DTYPES)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """A memory-mapped file of tokens."""
    tokens = np.random.default_rng(0).integers(0, DTYPES[request.param], 5_000).astype(request.param)
    path: Path = tmp_path_factory.mktemp("feed") / "train.bin"
    tokens.tofile(path)
    return read_tokens(path, request.param)


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "from the file"])
@pytest.mark.parametrize("count", [1, 4])
def test_what_is_fed_are_the_batches(data: np.ndarray, resident: bool, count: int) -> None:
    firsts = range(0, 12, count)
    fed = list(Feed(data, SETTINGS, count, resident)(firsts))
    assert len(fed) == len(firsts)
    for first, windows in zip(firsts, fed, strict=True):
        assert windows.dtype == data.dtype and windows.shape == (count, SETTINGS.batch, SETTINGS.time + 1)
        np.testing.assert_array_equal(windows, batches(data, SETTINGS, first, count))


def test_batches_are_a_function_of_seed_and_step(data: np.ndarray) -> None:
    """The slow definition."""
    for step in (0, 7):
        starts = np.random.default_rng((SETTINGS.seed, step)).integers(0, len(data) - SETTINGS.time, SETTINGS.batch)
        expected = np.stack([data[start : start + SETTINGS.time + 1] for start in starts])
        np.testing.assert_array_equal(batches(data, SETTINGS, step, 1)[0], expected)
    later = list(Feed(data, SETTINGS, 2, resident=False)(range(6, 12, 2)))
    np.testing.assert_array_equal(np.concatenate(later), batches(data, SETTINGS, 6, 6))
    assert (batches(data, replace(SETTINGS, seed=6), 0, 4) != batches(data, SETTINGS, 0, 4)).any()


def test_the_first_and_the_last_window_are_drawn_too() -> None:
    settings = replace(SETTINGS, batch=500)
    starts = window_starts(SETTINGS.time + 3, settings, 0, 1)
    assert set(starts.ravel().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("resident", [True, False])
def test_one_may_stop_in_the_middle_or_want_nothing(data: np.ndarray, resident: bool) -> None:
    feed = Feed(data, SETTINGS, 2, resident)
    assert list(feed(range(0, 0, 2))) == []
    threads = threading.active_count()
    windows = feed(range(0, 12, 2))
    next(windows)
    windows.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= threads, "no thread is left behind"
    np.testing.assert_array_equal(next(feed(range(4, 6, 2))), batches(data, SETTINGS, 4, 2))


def test_a_batch_is_gathered_while_the_one_before_is_used(data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = threading.Event()
    feed = Feed(data, SETTINGS, 2, resident=False)
    read = feed._read

    def noted(first: int) -> object:
        windows = read(first)
        if first == 2:
            gathered.set()
        return windows

    monkeypatch.setattr(feed, "_read", noted)
    windows = feed(range(0, 12, 2))
    next(windows)
    assert gathered.wait(10), "nobody asked for it yet"
    windows.close()  # type: ignore[attr-defined]


def test_what_was_let_go_is_read_again(data: np.ndarray) -> None:
    before = np.array(data)
    let_go(data)
    np.testing.assert_array_equal(data, before)
    let_go(before)  # in memory: nothing to let go of


def test_on_a_cpu_nothing_lies_on_a_device(data: np.ndarray) -> None:
    assert not is_resident(data, device_bytes=2**40)


def test_held_out_windows_reach_from_the_first_to_the_last_token(data: np.ndarray) -> None:
    windows = held_out_windows(data, 9, SETTINGS.time)
    assert windows.shape == (9, SETTINGS.time + 1)
    np.testing.assert_array_equal(windows[0], data[: SETTINGS.time + 1])
    np.testing.assert_array_equal(windows[-1], data[-SETTINGS.time - 1 :])
