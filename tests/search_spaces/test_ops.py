"""Every chunk-parallel form agrees with the recurrence that defines it: values, gradients, state.

A new op lists itself in `FORMS`. Lengths and dims are spread over forms and decays by a covering design rather than a
full product: each form meets three of the five `SHAPES`, each decay all of them, and all gates share one program.

Bars are relative root mean squares. float32 resolves 6e-8; a sum over a chunk, its inverse and the chain of states grow
that to about 1e-6, so 1e-5 for values leaves room for other orders of summation and none for a wrong term; a gradient
passes through the same sums twice: 1e-4.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax import Array

from search_spaces.linear_attention import ops
from search_spaces.linear_attention.ops import chunks

Inputs = dict[str, Array]
VALUES, GRADIENTS = 1e-5, 1e-4
# bfloat16 keeps 8 bits, so rounding alone costs an output .002; flash-linear-attention's bars.
HALF_OUTPUTS, HALF_GRADIENTS, HALF_GATES = 5e-3, 8e-3, 2e-2


class Form(NamedTuple):
    parallel: Callable
    recurrent: Callable
    step: Callable | None  # None where a token is several steps
    arguments: tuple[str, ...]
    steps: int = 1  # keys per query


LINEAR = ops.linear_attention, ops.recurrent_linear_attention, ops.step_linear_attention
DELTA = ops.delta_rule, ops.recurrent_delta_rule
FORMS = {
    "linear_attention": Form(*LINEAR, ("q", "k", "v")),
    "linear_attention with a bonus": Form(*LINEAR, ("q", "k", "v", "bonus")),
    "delta_rule": Form(*DELTA, ops.step_delta_rule, ("q", "k", "v", "beta")),
    "delta_rule with two steps": Form(*DELTA, None, ("q", "k", "v", "beta"), steps=2),
    "dplr": Form(ops.dplr, ops.recurrent_dplr, ops.step_dplr, ("q", "k", "v", "a", "b")),
}
POSITIONAL = ("q", "k", "v", "beta", "a", "b")
KEYWORDS = ("log_decay", "bonus", "initial_state")
DECAYS = ("none", "per head", "per channel")
GATES = {  # log decays, none of which clamping, a difference of sums, or exp(G) * exp(-G) would survive
    "drawn": lambda x: -jax.nn.softplus(x),
    "strong": lambda x: jnp.full_like(x, -20.0),
    "none or all": lambda x: jnp.where(x > 0, 0.0, -20.0),
    "weak after strong": lambda x: jnp.where(x > 0, -0.01 * x, 20.0 * x),
    "zero": jnp.zeros_like,
}
SHAPES = ((63, 16, 32), (64, 32, 16), (65, 64, 32), (200, 128, 64), (200, 32, 128))  # time, key_dim, value_dim
BATCH, HEADS = 2, 2


def make_inputs(
    name: str, decay: str, gates: str = "drawn", time: int = 40, key_dim: int = 16, value_dim: int = 8, seed: int = 0
) -> Inputs:
    form, keys = FORMS[name], iter(jax.random.split(jax.random.key(seed), 8))
    tokens, steps = (BATCH, time, HEADS), (BATCH, form.steps * time, HEADS)
    erased = ops.l2_normalize(jax.random.normal(next(keys), (*steps, key_dim)))
    rate = jax.nn.sigmoid(jax.random.normal(next(keys), (*steps, key_dim)))
    every = {
        "q": jax.random.normal(next(keys), (*tokens, key_dim)),
        "k": ops.l2_normalize(jax.random.normal(next(keys), (*steps, key_dim))),
        "v": jax.random.normal(next(keys), (*steps, value_dim)),
        "beta": 2.0 * rate[..., 0],
        "a": -erased,
        "b": rate * erased,
        "bonus": jax.random.normal(next(keys), (HEADS, key_dim)),
    }
    inputs = {argument: every[argument] for argument in form.arguments}
    inputs["initial_state"] = jax.random.normal(next(keys), (BATCH, HEADS, key_dim, value_dim))
    if decay != "none":
        drawn = jax.random.normal(next(keys), tokens if decay == "per head" else (*tokens, key_dim))
        inputs["log_decay"] = GATES[gates](drawn)
    return inputs


def cut(inputs: Inputs, start: int, stop: int) -> Inputs:
    """The tokens from `start` to `stop`."""
    each = {name: x.shape[1] // inputs["q"].shape[1] for name, x in inputs.items() if name not in KEYWORDS}
    each["log_decay"] = 1
    return {name: x[:, start * each[name] : stop * each[name]] if name in each else x for name, x in inputs.items()}


def call(function: Callable, inputs: Inputs) -> tuple[Array, Array]:
    keywords = {name: x for name, x in inputs.items() if name in KEYWORDS}
    return function(*(inputs[name] for name in POSITIONAL if name in inputs), **keywords)


def run(function: Callable, inputs: Inputs) -> tuple[Array, Array]:
    return jax.jit(partial(call, function))(inputs)


def gradient(function: Callable) -> Callable[[Inputs], tuple[Inputs, tuple[Array, Array]]]:
    """Inputs -> gradients, (output, state), of a loss that depends on every output and on the state."""

    def loss(inputs: Inputs) -> tuple[Array, tuple[Array, Array]]:
        y, state = call(function, inputs)
        weights = (jax.random.normal(jax.random.key(seed), x.shape) for seed, x in enumerate((y, state)))
        return sum(jnp.sum(w * jnp.sin(x)) for w, x in zip(weights, (y, state), strict=True)), (y, state)

    return jax.jit(jax.grad(loss, has_aux=True))


def error(actual: Array, expected: Array) -> float:
    """Root mean square of the difference, relative to the expected one's, or to 1e-3 where that is smaller.

    What a decay of -20 lets through has a gradient of about 1e-9, below what sums beside larger terms resolve.
    """
    actual, expected = actual.astype(jnp.float32), expected.astype(jnp.float32)
    return float(jnp.sqrt(jnp.mean((actual - expected) ** 2)) / jnp.maximum(jnp.sqrt(jnp.mean(expected**2)), 1e-3))


def assert_agree(fast: Callable, slow: Callable, inputs: Inputs, case: object = "") -> None:
    actual, (y, state) = fast(inputs)
    expected, (slow_y, slow_state) = slow(inputs)
    assert error(y, slow_y) < VALUES, case
    assert error(state, slow_state) < VALUES, case
    for name in inputs:
        assert error(actual[name], expected[name]) < GRADIENTS, (name, case)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", FORMS)
def test_chunks_agree_with_the_recurrence(name: str, decay: str) -> None:
    shape = SHAPES[(list(FORMS).index(name) + 2 * DECAYS.index(decay)) % len(SHAPES)]
    fast, slow = gradient(FORMS[name].parallel), gradient(FORMS[name].recurrent)
    for gates in GATES if decay != "none" else ["drawn"]:
        assert_agree(fast, slow, make_inputs(name, decay, gates, *shape), gates)


@pytest.mark.parametrize("chunk", [1, 64])
@pytest.mark.parametrize("name", FORMS)
def test_any_chunk_agrees_with_the_recurrence(name: str, chunk: int) -> None:
    inputs = make_inputs(name, "per channel", "weak after strong", time=70)
    for actual, expected in zip(
        run(partial(FORMS[name].parallel, chunk=chunk), inputs), run(FORMS[name].recurrent, inputs), strict=True
    ):
        assert error(actual, expected) < VALUES


@pytest.mark.parametrize("name", FORMS)
def test_every_length_agrees_with_the_recurrence(name: str) -> None:
    inputs = make_inputs(name, "per head", time=200)
    expected, _ = run(FORMS[name].recurrent, inputs)
    for time in (1, 2, 63, 64, 65, 200):
        y, _ = run(FORMS[name].parallel, cut(inputs, 0, time))
        assert error(y, expected[:, :time]) < VALUES, time


@pytest.mark.parametrize("name", FORMS)
def test_segments_that_fit_the_cache_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a long sequence is computed on CPU: seven or more chunks by threes, the last segment padded."""
    inputs = make_inputs(name, "per channel", time=100)
    monkeypatch.setattr(chunks, "SEGMENT_BYTES", 4 * 3 * 16 * BATCH * HEADS * 16)
    assert_agree(gradient(partial(FORMS[name].parallel, chunk=16)), gradient(FORMS[name].recurrent), inputs)


def test_of_a_segment_the_inverses_are_kept_and_nothing_else_so_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a scan over segments hands to the gradient: outputs, states, inverses."""
    monkeypatch.setattr(chunks, "SEGMENT_BYTES", 1024)
    inputs = make_inputs("delta_rule", "per head", time=256)
    traced = jax.make_jaxpr(lambda inputs: jax.vjp(partial(call, ops.delta_rule), inputs)[0])(inputs)
    forward = next(equation for equation in traced.eqns if equation.primitive.name == "scan")
    kept = [x.aval.shape[1:] for x in forward.outvars if x.aval.ndim > 4]
    assert (1, BATCH, HEADS, 32, 32) in kept, kept
    assert len(kept) <= 3, kept


@pytest.mark.parametrize("name", FORMS)
def test_what_an_accelerator_computes_agrees_with_the_recurrence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64, all at once."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chunks, "SEGMENT_BYTES", 1)
    inputs = make_inputs(name, "per head", time=130)
    assert chunks.chunk_length(130, None) == 64
    assert_agree(gradient(FORMS[name].parallel), gradient(FORMS[name].recurrent), inputs)


@pytest.mark.parametrize("name", FORMS)
def test_a_single_token_has_the_gradients_of_the_recurrence(name: str) -> None:
    inputs = make_inputs(name, "per channel", time=1)
    assert_agree(gradient(FORMS[name].parallel), gradient(FORMS[name].recurrent), inputs)


@pytest.mark.parametrize("name", FORMS)
def test_a_state_handed_on_continues_the_sequence(name: str) -> None:
    inputs = make_inputs(name, DECAYS[1 + list(FORMS).index(name) % 2])
    whole, last = run(FORMS[name].parallel, inputs)
    first, state = run(FORMS[name].parallel, cut(inputs, 0, 23))
    second, state = run(FORMS[name].parallel, {**cut(inputs, 23, 40), "initial_state": state})
    assert error(jnp.concatenate([first, second], axis=1), whole) < VALUES
    assert error(state, last) < VALUES


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("name", FORMS)
def test_token_by_token_is_the_recurrence(name: str, decay: str) -> None:
    form, inputs = FORMS[name], make_inputs(name, decay, time=5)
    whole, last = run(form.recurrent, inputs)
    one = jax.jit(partial(call, form.parallel))
    state = inputs["initial_state"]
    for t in range(5):
        now = {**cut(inputs, t, t + 1), "initial_state": state}
        y, state = one(now)
        assert error(y[:, 0], whole[:, t]) < VALUES
        if form.step is not None:
            token = {name: x[:, 0] for name, x in now.items() if name not in ("bonus", "initial_state")}
            bonus = {"bonus": now["bonus"]} if "bonus" in now else {}
            step_state = form.step(
                *(token[name] for name in POSITIONAL if name in token),
                now["initial_state"],
                log_decay=token.get("log_decay"),
                **bonus,
            )
            assert error(step_state[0], y[:, 0]) < VALUES
            assert error(step_state[1], state) < VALUES
    assert error(state, last) < VALUES


@pytest.mark.parametrize("decay", ["none", "per head", "per channel"])
def test_several_householder_steps_are_the_same_steps_one_by_one(decay: str) -> None:
    inputs = make_inputs("delta_rule with two steps", decay, time=3)
    y, last = run(ops.delta_rule, inputs)
    state = inputs["initial_state"]
    for t in range(3):
        for i in (2 * t, 2 * t + 1):
            log_decay = inputs["log_decay"][:, t] if decay != "none" and i == 2 * t else None
            k, v, beta = (inputs[name][:, i] for name in ("k", "v", "beta"))
            read, state = ops.step_delta_rule(inputs["q"][:, t], k, v, beta, state, log_decay=log_decay)
        assert error(y[:, t], read) < VALUES
    assert error(last, state) < VALUES


@pytest.mark.parametrize("name", FORMS)
def test_half_precision_in_and_out_with_a_state_in_full(name: str) -> None:
    inputs = make_inputs(name, DECAYS[1 + list(FORMS).index(name) % 2], time=65, key_dim=32, value_dim=16)
    half = {name: x.astype(jnp.bfloat16) for name, x in inputs.items()}
    actual, (y, state) = gradient(FORMS[name].parallel)(half)
    rounded = {name: x.astype(jnp.float32) for name, x in half.items()}
    expected, (slow_y, slow_state) = gradient(FORMS[name].recurrent)(rounded)
    assert (y.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    assert error(y, slow_y) < HALF_OUTPUTS
    assert error(state, slow_state) < VALUES
    for argument in inputs:
        bar = HALF_GATES if argument in ("beta", "log_decay") else HALF_GRADIENTS
        assert error(actual[argument], expected[argument]) < bar, argument


@pytest.mark.parametrize("name", FORMS)
def test_seeds_layers_and_donated_buffers_give_the_same_numbers(name: str) -> None:
    """vmap over seeds, scan over layers, and jit that reuses its inputs' memory."""
    seeds = [make_inputs(name, "per channel", seed=seed) for seed in (0, 1)]
    plain = jax.jit(partial(call, FORMS[name].parallel))
    expected = jax.tree.map(lambda *x: jnp.stack(x), *(plain(inputs) for inputs in seeds))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *seeds)

    def layers(stacked: Inputs) -> tuple[Array, Array]:
        return jax.lax.scan(lambda carry, inputs: (carry, call(FORMS[name].parallel, inputs)), None, stacked)[1]

    mapped = jax.jit(jax.vmap(partial(call, FORMS[name].parallel)))(stacked)
    scanned = jax.jit(layers)(stacked)
    state = jnp.copy(seeds[0]["initial_state"])  # the one input with the shape and the dtype of an output
    donated = jax.jit(
        lambda state, inputs: call(FORMS[name].parallel, {**inputs, "initial_state": state}), donate_argnums=0
    )(state, seeds[0])
    for actual in (mapped, scanned):
        assert max(error(*pair) for pair in zip(actual, expected, strict=True)) < VALUES
    assert max(error(x, many[0]) for x, many in zip(donated, expected, strict=True)) < VALUES


def test_a_decay_of_zero_is_no_decay() -> None:
    inputs = make_inputs("dplr", "per channel", "zero")
    plain = {name: x for name, x in inputs.items() if name != "log_decay"}
    for actual, expected in zip(run(ops.dplr, inputs), run(ops.dplr, plain), strict=True):
        assert error(actual, expected) < VALUES


@pytest.mark.parametrize("decay", DECAYS)
def test_dplr_holds_the_delta_rule(decay: str) -> None:
    inputs = make_inputs("delta_rule", decay)
    q, k, v, beta, log_decay = (inputs.get(name) for name in ("q", "k", "v", "beta", "log_decay"))
    factor = 1.0 if log_decay is None else jnp.exp(log_decay).reshape(*k.shape[:3], -1)
    expected = ops.delta_rule(q, k, v, beta, log_decay=log_decay)
    actual = ops.dplr(q, k, beta[..., None] * v, -factor * k, beta[..., None] * k, log_decay=log_decay)
    assert max(error(*pair) for pair in zip(actual, expected, strict=True)) < VALUES


def test_repeated_keys_keep_the_delta_rule_exact() -> None:
    inputs = make_inputs("delta_rule", "none", time=100)
    inputs["k"] = jnp.broadcast_to(inputs["k"][:, :1], inputs["k"].shape)
    y, _ = run(partial(ops.delta_rule, chunk=64), inputs)
    assert error(y, run(ops.recurrent_delta_rule, inputs)[0]) < VALUES


def test_a_chunk_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk=24 is not a power of two"):
        call(partial(ops.linear_attention, chunk=24), make_inputs("linear_attention", "none"))


def test_a_part_of_a_step_is_refused() -> None:
    inputs = make_inputs("delta_rule with two steps", "none", time=3)
    with pytest.raises(ValueError, match="6 keys are not a whole number of steps for each of 4 queries"):
        call(ops.delta_rule, {**inputs, "q": jnp.zeros((BATCH, 4, HEADS, 16))})
