"""One function, one fingerprint: whatever its fields are called and in whatever order it is written."""

from pathlib import Path

import pytest

from nas.gate import GateSettings, inspect
from nas.gate.novelty import fingerprint
from nas.gate.probe import Probe
from nas.types import Rejected

SETTINGS = GateSettings(16, 2, 32, ("jax", "jax.numpy", "jax.nn", "jax.lax", "flax.nnx", "functools"))

SOURCE = '''
import functools

import jax
import jax.numpy as jnp
from flax import nnx


class TokenMixer(nnx.Module):
    """Gated linear recurrence."""

    def __init__(self, width, heads, *, rngs):
        linear = functools.partial(nnx.Linear, width, width, rngs=rngs)
        self.query = linear()
        self.value = linear()
        self.gate = linear()
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x):
        f = jax.nn.sigmoid(self.gate(x)).astype(jnp.float32)
        v = self.value(x).astype(jnp.float32)

        def step(s, inputs):
            f_t, v_t = inputs
            s = f_t * s + (1 - f_t) * v_t
            return s, s

        h = jax.lax.scan(step, jnp.zeros_like(v[:, 0]), (f.swapaxes(0, 1), v.swapaxes(0, 1)))[1].swapaxes(0, 1)
        return (h * self.query(x) * self.scale[...]).astype(x.dtype)
'''
RENAMED = SOURCE.replace("query", "zeta").replace("gate", "alpha").replace("self.scale", "self.aaa")
REORDERED = SOURCE.replace(
    "        self.query = linear()\n        self.value = linear()\n",
    "        self.value = linear()\n        self.query = linear()\n",
).replace("h * self.query(x) * self.scale[...]", "self.scale[...] * (self.query(x) * h)")
ASSOCIATIVE = (
    SOURCE[: SOURCE.index("        def step")]
    + """
        h = jax.lax.associative_scan(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (f, (1 - f) * v), axis=1)[1]
        return (h * self.query(x) * self.scale[...]).astype(x.dtype)
"""
)
OTHERS = {
    "ungated write": SOURCE.replace("(1 - f_t) * v_t", "v_t"),
    "roles exchanged": SOURCE.replace("h * self.query(x)", "h + self.query(x)"),
    "half decay": SOURCE.replace("f_t * s", "f_t**0.5 * s"),
    "another activation": SOURCE.replace("self.value(x)", "jax.nn.silu(self.value(x))"),
    "another shape": SOURCE.replace("jnp.ones(width)", "jnp.ones(1)"),
    "another initial value": SOURCE.replace("jnp.ones(width)", "jnp.zeros(width)"),
    "another initial scale": SOURCE.replace(
        "self.gate = linear()",
        "self.gate = linear(kernel_init=nnx.initializers.normal(0.02))",
    ),
}


@pytest.fixture(scope="module")
def original():
    return fingerprint(Probe(SOURCE, SETTINGS))


@pytest.mark.parametrize(
    "source", [SOURCE, RENAMED, REORDERED, ASSOCIATIVE], ids=["same", "renamed", "reordered", "scan"]
)
def test_the_same_function_has_the_same_fingerprint(source, original):
    assert fingerprint(Probe(source, SETTINGS)) == original


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_has_another(name, original):
    assert OTHERS[name] != SOURCE
    assert fingerprint(Probe(OTHERS[name], SETTINGS)) != original


def test_all_good_candidates_differ():
    folder = Path(__file__).parent / "candidates"
    sources = [path.read_text() for path in sorted(folder.glob("good_*.py"))]
    assert len({fingerprint(Probe(source, SETTINGS)) for source in sources}) == len(sources)


def test_what_is_known_is_rejected(original):
    known = GateSettings(16, 2, 32, SETTINGS.allowed_imports, known={original: "c0ffee"})
    result = inspect(RENAMED, known, lambda check: None)
    assert result == Rejected("novelty", "computes the same function as candidate c0ffee")
