"""Bits per byte is its definition: bits of the tokens that stand for text, over the bytes of these."""

import math

import numpy as np
import pytest

from nas.tasks.bits import bits_of_windows, bits_per_byte

TOKEN_BYTES = np.array([1, 3, 0, 7, 2], np.uint16)


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    windows = generator.integers(0, 5, (6, 9)).astype(np.uint16)
    return windows, generator.uniform(0, 8, (6, 8)).astype(np.float32)


def test_specials_count_in_neither() -> None:
    windows, bits = example()
    of_windows = np.asarray(bits_of_windows(bits, windows[:, 1:].astype(np.int32), TOKEN_BYTES), np.float64)
    total_bits = total_bytes = 0.0
    for row, tokens in enumerate(windows.tolist()):
        for column, token in enumerate(tokens[1:]):
            if TOKEN_BYTES[token]:
                total_bits += float(bits[row, column])
                total_bytes += int(TOKEN_BYTES[token])
    assert bits_per_byte(of_windows, windows, TOKEN_BYTES)[0] == pytest.approx(total_bits / total_bytes, rel=1e-6)


def test_of_bytes_it_is_the_mean_over_windows_and_its_usual_error() -> None:
    ones = np.ones(256, np.uint16)
    windows, bits = example()
    of_windows = np.asarray(bits_of_windows(bits, windows[:, 1:].astype(np.int32), ones), np.float64)
    means = bits.astype(np.float64).mean(axis=1)
    found = bits_per_byte(of_windows, windows, ones)
    assert found == (pytest.approx(means.mean()), pytest.approx(means.std(ddof=1) / math.sqrt(6)))


def test_the_standard_error_is_that_of_many_draws() -> None:
    """Windows with more text have more bits: that is no noise."""
    generator = np.random.default_rng(1)
    table = np.array([1, 5], np.uint16)
    ratios, errors = [], []
    for _ in range(400):
        windows = (generator.random((64, 33)) < generator.random((64, 1))).astype(np.uint16)
        text = table[windows[:, 1:]].sum(axis=1)
        bits = 2.0 * text + generator.normal(0, 6, 64)
        ratio, error = bits_per_byte(bits, windows, table)
        ratios.append(ratio)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.15)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_measurement(bad: float) -> None:
    windows, _ = example()
    assert math.isnan(bits_per_byte(np.array([1, 2, 3, bad, 5, 6.0]), windows, TOKEN_BYTES)[0])


def test_without_text_there_is_nothing_to_measure() -> None:
    windows = np.full((3, 9), 2, np.uint16)
    assert math.isnan(bits_per_byte(np.ones(3), windows, TOKEN_BYTES)[0])
