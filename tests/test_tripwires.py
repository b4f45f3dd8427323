"""The bounds themselves: what trips, at the bound and beside it, and in which words."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from fakes import fitness

from nas.settings import TripwireSettings
from nas.tripwires import collapse, entropy, gap, leap
from nas.types import Fitness

# Numbers that are exact in binary, so that "at the bound" is at the bound.
SETTINGS = TripwireSettings(leap=2.0, least_leap=0.25, entropy=0.5, gap=0.25, collapse=0.75, collapse_window=8)
BASELINES = {"plain": fitness(2.5), "strong": fitness(2.25)}  # a spread of 0.25: the bound is 0.5
ALIKE = {"plain": fitness(2.25), "strong": fitness(2.25)}  # no spread: the bound is 0.25


# Leap


@pytest.mark.parametrize(
    ("bits", "baselines", "trips"),
    [
        (1.75, BASELINES, False),
        (1.75 - 2**-20, BASELINES, True),
        (2.0, ALIKE, False),
        (2.0 - 2**-20, ALIKE, True),
        (2.0, {"strong": fitness(2.25)}, False),
        (1.99, {"strong": fitness(2.25)}, True),
        (2.25, BASELINES, False),
        (9.0, BASELINES, False),
        (0.0, {}, False),
    ],
)
def test_a_leap_is_more_than_the_baselines_differ_and_more_than_the_least(
    bits: float, baselines: dict, trips: bool
) -> None:
    assert bool(leap(fitness(bits), baselines, SETTINGS)) == trips


def test_a_leap_is_told_with_its_figures() -> None:
    reason = leap(fitness(1.5), BASELINES, SETTINGS)
    assert reason == (
        "it gains 0.750 bits per byte over strong (1.500 against 2.250); "
        "up to 0.500 pass without a look (spread of the baselines: 0.250)"
    )


def test_a_trial_that_was_stopped_early_can_leap_too() -> None:
    assert leap(fitness(1.5, step=10), BASELINES, SETTINGS)


def test_what_was_accepted_moves_the_bar_and_not_the_bound() -> None:
    accepted = {"t0012": fitness(1.5)}
    assert leap(fitness(1.5), BASELINES, SETTINGS) and not leap(fitness(1.5), BASELINES, SETTINGS, accepted)
    assert not leap(fitness(1.0), BASELINES, SETTINGS, accepted)
    reason = leap(fitness(0.875), BASELINES, SETTINGS, accepted)
    assert reason and "over t0012 (0.875 against 1.500); up to 0.500 pass" in reason
    worse = {"t0012": fitness(2.75)}
    assert leap(fitness(1.5), BASELINES, SETTINGS, worse) == leap(fitness(1.5), BASELINES, SETTINGS)


# Entropy


@pytest.mark.parametrize(
    ("bits", "compressed", "trips"),
    [(1.0, 2.0, False), (1.0 - 2**-20, 2.0, True), (0.0, 2.0, True), (3.0, 2.0, False), (0.0, None, False)],
)
def test_a_loss_is_below_what_the_text_can_hold(bits: float, compressed: float | None, trips: bool) -> None:
    assert bool(entropy(fitness(bits), compressed, SETTINGS)) == trips


def test_entropy_is_told_with_its_figures() -> None:
    reason = entropy(fitness(0.0625), 2.0, SETTINGS)
    assert reason == "its 0.062 bits per byte are under 0.5 of the 2.000 that LZMA needs for the same text"


# Gap


def rescored(bits: float, held_out: float | None) -> Fitness:
    return replace(fitness(bits), held_out_bits_per_byte=held_out, held_out_stderr=None if held_out is None else 0.0)


@pytest.mark.parametrize(
    ("held_out", "trips"), [(2.5, False), (2.5 + 2**-20, True), (9.0, True), (1.0, False), (None, False)]
)
def test_a_gap_is_more_than_the_baselines_have(held_out: float | None, trips: bool) -> None:
    baselines = {"plain": rescored(2.5, 2.75), "strong": rescored(2.25, 2.5), "old": fitness(2.0)}
    assert bool(gap(rescored(2.0, held_out), baselines, SETTINGS)) == trips
    assert gap(rescored(2.0, held_out), {"old": fitness(2.0)}, SETTINGS) is None, "nothing to hold it against"


def test_a_gap_is_told_with_its_figures() -> None:
    reason = gap(rescored(2.0, 9.0), {"plain": rescored(2.5, 2.75)}, SETTINGS)
    assert reason and "needs 7.000 bits per byte more" in reason and "need 0.250 more" in reason


# Collapse

MIXED = ["a", "b", "c", "d"] * 4


@pytest.mark.parametrize(
    ("families", "operators", "kind"),
    [
        (["a"] * 8, [], "family"),
        (["a"] * 7, [], None),  # fewer than the window
        (["b", "c", *["a"] * 6], [], "family"),  # 6 of 8 is the share of 0.75 exactly
        (["b", "c", "b", *["a"] * 5], [], None),
        (["a"] * 100 + ["b"] * 3 + ["a"] * 5, [], None),  # what was long ago does not count
        ([*MIXED, "b", "c", *["a"] * 6], [], "family"),
        (MIXED, MIXED, None),
        (MIXED, ["x"] * 8, "operator"),
        ([], ["x"] * 8, "operator"),
        (MIXED, ["x"] * 7, None),
        (MIXED, ["y", "z", "y", *["x"] * 5], None),
        (["a"] * 8, ["x"] * 8, "family"),
        ([], [], None),
    ],
)
def test_a_search_that_repeats_itself_has_collapsed(
    families: Sequence[str], operators: Sequence[str], kind: str | None
) -> None:
    found = collapse(families, operators, SETTINGS)
    assert (found is not None) == (kind is not None)
    assert found is None or (f"the {kind} " in str(found["reason"]) and (found["family"] is None) == (kind != "family"))


def test_collapse_is_told_with_its_figures() -> None:
    found = collapse(["delta", "gated", *["additive"] * 6], [], SETTINGS)
    reason = "6 of the last 8 trained candidates are of one family: the family additive"
    assert found == {"reason": reason, "family": "additive"}
    reason = "8 of the last 8 proposals are by one operator: the operator decay"
    assert collapse([], ["decay"] * 8, SETTINGS) == {"reason": reason, "family": None}


def test_the_search_that_it_is_for_trips_it() -> None:
    """101 of 106 in one family, wherever the other five stand; a share just below, evenly spread, does not."""
    settings = TripwireSettings()
    families = ["delta"] * 106
    for place in (0, 25, 50, 75, 105):
        families[place] = f"other {place}"
    assert collapse(families, [], settings)
    spread = (["delta"] * 7 + ["additive"]) * 20  # 35 of any 40
    assert collapse(spread, [], settings) is None
    assert collapse(spread, [], replace(settings, collapse=0.875))


def test_the_share_is_the_one_that_is_written() -> None:
    """0.9 is no binary fraction: 36 of 40 trip it all the same."""
    assert collapse(["a"] * 36 + ["b"] * 4, [], TripwireSettings(collapse=0.9, collapse_window=40))
    assert not collapse(["a"] * 35 + ["b"] * 5, [], TripwireSettings(collapse=0.9, collapse_window=40))


def test_the_import_brings_nothing_with_it() -> None:
    code = "import sys, nas.tripwires; sys.exit(bool({'jax', 'ray', 'mlflow', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
