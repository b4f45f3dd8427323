"""What the checks rest on."""

import json
import subprocess
import sys
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.gate import GateSettings, inspect
from nas.gate.double import NoDouble, in_double
from nas.types import Rejected


def test_settings_cross_a_pipe():
    settings = GateSettings(16, 2, 64, ("jax", "flax.nnx"), max_params=10, known={"ab": "cd"})
    assert GateSettings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_importing_the_settings_imports_no_jax():
    code = "import sys, nas.gate; nas.gate.GateSettings(1, 1, 8, ()); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_base_exception_is_a_rejection(monkeypatch):
    from nas.gate import static

    monkeypatch.setattr(static, "check", lambda source, settings: "")  # static would refuse the name
    result = inspect("raise SystemExit(3)\n", GateSettings(16, 2, 64, ()), lambda check: None)
    assert result == Rejected("contract", "raised SystemExit: 3 at line 1: `raise SystemExit(3)`")


def program(x):
    """One of each kind of equation that has equations inside, with casts to float32 on the way."""
    h = jax.lax.scan(lambda c, y: (c * 0.9 + y.astype(jnp.float32), jnp.tanh(c)), jnp.zeros(x.shape[1:]), x)[1]
    h = jax.lax.cond(x[0, 0] > 0, lambda h: h + 1, lambda h: h - 1, h)
    h = jax.checkpoint(jnp.sin)(jax.nn.relu(h) + jax.nn.softmax(h.astype(jnp.bfloat16).astype(jnp.float32)))
    spectrum = jnp.fft.rfft(h, 2 * x.shape[0], axis=0)
    h = jnp.fft.irfft(spectrum * spectrum, 2 * x.shape[0], axis=0)[: x.shape[0]]
    h = jax.lax.custom_linear_solve(
        lambda z: 3 * z + jnp.sum(x) * z, h, lambda _, b: b / (3 + jnp.sum(x)), symmetric=True
    )
    return jnp.where(jnp.arange(x.shape[0])[:, None] > 2, jnp.cumsum(h, 0) @ jnp.ones((x.shape[1], 3)), 0.0)


def test_the_same_program_in_double_precision():
    x = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    single = np.asarray(program(x))
    with jax.enable_x64(False):
        traced = jax.make_jaxpr(program)(x)
    with jax.enable_x64(True):
        double = np.asarray(jax.jit(in_double(traced))(x.astype(np.float64))[0])
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=0.02, atol=0.02 * np.abs(single).max())  # one cast to bfloat16
    assert not np.array_equal(double.astype(np.float32), single)


def test_a_loop_without_a_trip_count_has_no_double():
    traced = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * 2, x))(1.0)
    with jax.enable_x64(True), pytest.raises(NoDouble):
        in_double(traced)(2.0)
