"""The ops' bench at a tiny size: its machinery, not its figures."""

import inspect
import math

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from search_spaces.linear_attention import bench, bench_gpu
from search_spaces.linear_attention.bench import OPS, Op, Shape, Timing

TINY = Shape(batch=1, time=8, heads=1, dim=4)


@pytest.mark.parametrize("name", OPS)
def test_both_forms_of_every_op_take_its_inputs_and_agree(name: str) -> None:
    """Else the bench compares two different things."""
    op = OPS[name]
    arguments = op.arguments(TINY)
    y, slow_y = op.chunked(**arguments)[0], op.recurrent(**arguments)[0]
    assert y.shape[:3] == (TINY.batch, TINY.time, TINY.heads)
    assert float(jnp.max(jnp.abs(y - slow_y))) < 1e-4 * float(jnp.max(jnp.abs(slow_y)))


@pytest.mark.parametrize("name", OPS)
def test_no_op_grows_or_dies_over_the_longest_sequence(name: str) -> None:
    """What overflows is not what training computes, and may take another time."""
    y = jax.jit(OPS[name].chunked)(**OPS[name].arguments(Shape(batch=1, time=max(bench.TIMES), heads=1, dim=4)))[0]
    assert bool(jnp.all(jnp.isfinite(y))) and 1e-3 < float(jnp.std(y[:, -64:])) < 1e3


def test_the_table_of_a_tiny_bench(capsys: pytest.CaptureFixture[str]) -> None:
    table = {"delta_rule": OPS["delta_rule"]}
    timings = list(bench.time_ops(table, (8, 16), TINY))
    assert [(t.op, t.time) for t in timings] == [("delta_rule", 8), ("delta_rule", 16)]
    assert all(min(t.recurrence_ms, t.chunked_ms, t.compile_seconds) > 0 for t in timings)
    ratios = {name: bench.vmap_ratio(op, TINY) for name, op in table.items()}
    assert 0 < ratios["delta_rule"] < math.inf
    record = {"device": "cpu", "cores": 1, "shape": {}, "vmap": ratios, "exponents": bench.exponents(timings)}
    bench.show({**record, "timings": [vars(timing) for timing in timings]}, Console(width=120))
    assert f"{timings[0].ratio:.1f}" in capsys.readouterr().out


def test_the_gradient_is_by_every_input() -> None:
    op = Op(lambda q, k: (q * k, None), lambda q, k: (q * k, None), "q k")
    arguments = op.arguments(TINY)
    value, slopes = bench.gradient(op.chunked)(arguments)
    assert float(value) == pytest.approx(float(jnp.sum((arguments["q"] * arguments["k"]) ** 2)))
    assert jnp.allclose(slopes["q"], 2 * arguments["q"] * arguments["k"] ** 2, rtol=1e-5)


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    timings = [Timing("op", time, 1.0, 3e-3 * time**1.5, 1.0, 1.0) for time in bench.TIMES]
    assert bench.exponents(timings)["op"] == pytest.approx(1.5)


def test_each_of_their_functions_has_an_op_of_ours_with_as_many_arguments() -> None:
    for name, (_, arguments) in bench_gpu.THEIRS.items():
        assert len(arguments.split()) == len(OPS[name].arguments(TINY)), name
        assert set(OPS[name].arguments(TINY)) <= set(inspect.signature(OPS[name].chunked).parameters)
