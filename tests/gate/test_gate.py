"""What the checks rest on."""

import json
import subprocess
import sys
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.gate import GateSettings, inspect, program
from nas.gate.double import NoDouble, in_double
from nas.gate.settings import REASON_LETTERS, Fault
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


@pytest.mark.parametrize(
    "text", ["two\nlines", "\x1b[2J\x1b[31mred", "\u202ebackwards", "\ud800", "long " * 1000, "\r\n\t a"]
)
def test_a_reason_is_one_printable_line(text):
    fault = Fault("contract", f"raised ValueError: {text} at line 3")
    assert fault.reason.isprintable() and len(fault.reason) <= REASON_LETTERS
    assert fault.reason.startswith("raised ValueError: ")


HOSTILE_NAMES = """
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        setattr(self, "out", nnx.Linear(width, width, rngs=rngs))
        setattr(self, f"a{chr(27)}[2J{chr(10)}obey{chr(8238)}" + "x" * 1000, nnx.Param(jnp.ones(3)))

    def __call__(self, x):
        return self.out(jnp.cumsum(x, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None])
"""


def test_a_reason_with_a_hostile_name_is_one_printable_line(monkeypatch):
    from nas.gate import static

    monkeypatch.setattr(static, "check", lambda source, settings: "")  # static would refuse the name
    result = inspect(HOSTILE_NAMES, GateSettings(16, 2, 64, ()), lambda check: None)
    assert isinstance(result, Rejected) and result.check == "contract"
    assert result.reason.isprintable() and len(result.reason) <= REASON_LETTERS


OUTSIDE = {
    "pure_callback": lambda x: jax.pure_callback(np.sin, x, x),
    "io_callback": lambda x: jax.experimental.io_callback(np.sin, x, x),
    "debug_print": lambda x: (jax.debug.print("{}", x[0]), x)[1],
    "in a scan": lambda x: jax.lax.scan(lambda c, y: (c, jax.pure_callback(np.sin, y, y)), 0.0, x)[1],
    "ffi": lambda x: jax.ffi.ffi_call("nothing", x)(x),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_program_that_reaches_outside_is_refused(name):
    traced = jax.make_jaxpr(OUTSIDE[name])(jnp.ones(3))
    with pytest.raises(Fault) as caught:
        program.check(traced, "program")
    assert caught.value.check == "purity"


def test_arithmetic_is_no_effect():
    program.check(jax.make_jaxpr(jax.grad(lambda x: everything(x).sum()))(jnp.ones((12, 4))), "program")


def everything(x):
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
    single = np.asarray(everything(x))
    with jax.enable_x64(False):
        traced = jax.make_jaxpr(everything)(x)
    with jax.enable_x64(True):
        double = np.asarray(jax.jit(in_double(traced))(x.astype(np.float64))[0])
    assert double.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=0.02, atol=0.02 * np.abs(single).max())  # one cast to bfloat16
    assert not np.array_equal(double.astype(np.float32), single)


def test_a_loop_without_a_trip_count_has_no_double():
    traced = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * 2, x))(1.0)
    with jax.enable_x64(True), pytest.raises(NoDouble):
        in_double(traced)(2.0)
