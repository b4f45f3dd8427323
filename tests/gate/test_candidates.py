"""The whole gate over a folder of candidates: each names in its first line the check that must reject it, or `good`.

Expected: about a minute on one core.
"""

import functools
from dataclasses import asdict
from pathlib import Path

import pytest

from nas.gate import CHECKS, GateSettings, inspect
from nas.sandbox import Limits
from nas.types import Certificate, Rejected

FOLDER = Path(__file__).parent / "candidates"
SETTINGS = GateSettings(
    width=16,
    heads=2,
    train_time=256,
    allowed_imports=("jax", "jax.numpy", "jax.nn", "jax.lax", "flax.nnx", "einops", "math", "functools"),
)


@pytest.fixture(scope="module")
def verdict(box, tmp_path_factory):
    """Name -> (the verdict, the checks that were started). In the box: some of them patch the libraries."""
    scratch = tmp_path_factory.mktemp("gate")

    @functools.cache
    def verdict(name):
        arguments = {"source": (FOLDER / name).read_text(), "settings": asdict(SETTINGS)}
        *started, last = box.run("nas.gate.boxed:boxed", arguments, scratch / name, Limits(seconds=300))
        [(kind, fields)] = [(key, value) for key, value in last["result"].items()]
        return {"certificate": Certificate, "rejected": Rejected}[kind](**fields), [m["started"] for m in started]

    return verdict


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_is_judged_by_the_right_check(name, verdict):
    expected = (FOLDER / name).read_text().splitlines()[0].removeprefix("# expect: ")
    result, started = verdict(name)
    if expected == "good":
        assert isinstance(result, Certificate), result
        assert tuple(started) == tuple(result.checks) == CHECKS
        assert result.params > 0 and result.flops_per_token > 0
        assert all(exponent <= SETTINGS.max_exponent for exponent in result.exponents.values())
    else:
        assert isinstance(result, Rejected), result
        assert result.check == expected, result
        assert "\n" not in result.reason and "Traceback" not in result.reason
        assert started == list(CHECKS[: len(started)])


def test_a_reason_says_where_and_by_how_much(verdict):
    result, _ = verdict("leak_plain.py")
    assert "output" in result.reason and "relative" in result.reason and "time 256" in result.reason


def test_an_error_is_reported_with_its_line(verdict):
    result, _ = verdict("contract_two_line_error.py")
    assert result.reason.startswith("raised RuntimeError: the end at line 7: `raise RuntimeError(")


def test_no_step_is_said_so(verdict):
    assert verdict("good_sliding_window.py")[0].checks["parity"] == "no step"
    assert verdict("good_sliding_window.py")[0].state_bytes is None
    assert verdict("good_cumulative_mean.py")[0].state_bytes == 16 * 4 + 4


@pytest.mark.parametrize(
    ("limit", "check"), [("max_params", "contract"), ("max_flops_per_token", "cost"), ("max_state_bytes", "parity")]
)
def test_limits(limit, check):
    source = (FOLDER / "good_cumulative_mean.py").read_text()
    small = GateSettings(16, 2, 32, SETTINGS.allowed_imports, **{limit: 3})
    result = inspect(source, small, lambda check: None)
    assert isinstance(result, Rejected) and result.check == check and "more than 3" in result.reason
