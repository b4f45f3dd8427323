"""Every chunk-parallel form agrees with the recurrence that defines it: values, gradients, state."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import Array

from search_spaces.linear_attention import ops

FORMS = {  # name -> (chunk-parallel form, recurrence)
    "linear_attention": (ops.linear_attention, ops.recurrent_linear_attention),
    "delta_rule": (ops.delta_rule, ops.recurrent_delta_rule),
}
GATES = {  # log decays: whatever is drawn, strong, and a mixture of none and all, which clamping would break
    "drawn": lambda gate: -jax.nn.softplus(gate),
    "strong": lambda gate: jnp.full_like(gate, -20.0),
    "none or all": lambda gate: jnp.where(gate > 0, 0.0, -20.0),
}
DECAYS = ("none", "per head", "per channel")
TIMES = (1, 15, 16, 17, 64, 100)
BATCH, HEADS, KEY_DIM, VALUE_DIM = 2, 2, 8, 6


def make_inputs(form: str, decay: str, gates: str = "drawn", time: int = max(TIMES)) -> dict[str, Array]:
    keys = jax.random.split(jax.random.key(0), 6)
    shape = (BATCH, time, HEADS)
    inputs = {
        "q": jax.random.normal(keys[0], (*shape, KEY_DIM)),
        "k": ops.l2_normalize(jax.random.normal(keys[1], (*shape, KEY_DIM))),
        "v": jax.random.normal(keys[2], (*shape, VALUE_DIM)),
        "initial_state": jax.random.normal(keys[3], (BATCH, HEADS, KEY_DIM, VALUE_DIM)),
    }
    if form == "delta_rule":
        inputs["beta"] = 2.0 * jax.nn.sigmoid(jax.random.normal(keys[4], shape))
    if decay != "none":
        inputs["log_decay"] = GATES[gates](
            jax.random.normal(keys[5], shape if decay == "per head" else (*shape, KEY_DIM))
        )
    return inputs


def cut(inputs: dict[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: x if name == "initial_state" else x[:, start:stop] for name, x in inputs.items()}


def call(function: Callable, inputs: dict[str, Array], **options: int) -> tuple[Array, Array]:
    keywords = {name: x for name, x in inputs.items() if name in ("log_decay", "initial_state")}
    positional = [inputs[name] for name in ("q", "k", "v", "beta") if name in inputs]
    return function(*positional, **keywords, **options)


def gradient(function: Callable) -> Callable:
    """Inputs, cotangents of the output and the state -> gradients, output, state."""

    def loss(inputs, weight, state_weight):
        y, state = call(function, inputs)
        return jnp.sum(weight * jnp.sin(y)) + jnp.sum(state_weight * state), (y, state)

    return jax.jit(jax.grad(loss, has_aux=True))


def error(actual: Array, expected: Array) -> float:
    """Root mean square of the difference, relative to the expected one's, or to 1e-3 where that is smaller.

    What a decay of -20 lets through has a gradient of about 1e-9, below what float32 sums resolve.
    """
    return float(jnp.sqrt(jnp.mean((actual - expected) ** 2)) / jnp.maximum(jnp.sqrt(jnp.mean(expected**2)), 1e-3))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("form", FORMS)
def test_chunks_agree_with_the_recurrence(form: str, decay: str) -> None:
    fast, slow = (gradient(function) for function in (partial(FORMS[form][0], chunk=16), FORMS[form][1]))
    for gates in GATES if decay != "none" else ["drawn"]:
        inputs = make_inputs(form, decay, gates)
        state_weight = jax.random.normal(jax.random.key(1), inputs["initial_state"].shape)
        weight = jax.random.normal(jax.random.key(2), inputs["v"].shape)
        actual, (y, state) = fast(inputs, weight, state_weight)
        expected, (slow_y, slow_state) = slow(inputs, weight, state_weight)
        assert error(y, slow_y) < 1e-5
        assert error(state, slow_state) < 1e-5
        for name in inputs:
            assert error(actual[name], expected[name]) < 1e-4, (gates, name)


@pytest.mark.parametrize("form", FORMS)
def test_every_length_agrees_with_the_recurrence(form: str) -> None:
    inputs = make_inputs(form, "per channel")
    slow_y, _ = call(jax.jit(FORMS[form][1]), inputs)
    for time in TIMES:
        y, _ = call(jax.jit(partial(FORMS[form][0], chunk=16)), cut(inputs, 0, time))
        assert error(y, slow_y[:, :time]) < 1e-5, time


@pytest.mark.parametrize("form", FORMS)
def test_gradients_agree_where_the_last_chunk_is_not_full(form: str) -> None:
    inputs = cut(make_inputs(form, "per head"), 0, 17)
    weight, state_weight = jnp.ones_like(inputs["v"]), jnp.ones_like(inputs["initial_state"])
    actual, _ = gradient(partial(FORMS[form][0], chunk=16))(inputs, weight, state_weight)
    expected, _ = gradient(FORMS[form][1])(inputs, weight, state_weight)
    for name in inputs:
        assert error(actual[name], expected[name]) < 1e-4, name


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_state_handed_on_continues_the_sequence(form: str, decay: str) -> None:
    function = jax.jit(FORMS[form][0])
    inputs = make_inputs(form, decay, time=40)
    whole, last = call(function, inputs)
    first, state = call(function, cut(inputs, 0, 23))
    second, state = call(function, {**cut(inputs, 23, 40), "initial_state": state})
    assert error(jnp.concatenate([first, second], axis=1), whole) < 1e-5
    assert error(state, last) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_in_and_out_with_a_state_in_full(form: str) -> None:
    inputs = make_inputs(form, "per head", time=64)
    half = {name: x.astype(jnp.bfloat16) for name, x in inputs.items()}
    y, state = call(jax.jit(FORMS[form][0]), half)
    slow_y, slow_state = call(jax.jit(FORMS[form][1]), {name: x.astype(jnp.float32) for name, x in half.items()})
    assert (y.dtype, state.dtype) == (jnp.bfloat16, jnp.float32)
    assert error(y.astype(jnp.float32), slow_y) < 5e-3
    assert error(state, slow_state) < 1e-5


def test_repeated_keys_keep_the_delta_rule_exact() -> None:
    inputs = make_inputs("delta_rule", "none")
    inputs["k"] = jnp.broadcast_to(inputs["k"][:, :1], inputs["k"].shape)
    y, _ = call(jax.jit(partial(ops.delta_rule, chunk=64)), inputs)
    slow_y, _ = call(jax.jit(ops.recurrent_delta_rule), inputs)
    assert error(y, slow_y) < 1e-5


def test_a_chunk_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk=24 is not a power of two"):
        call(partial(ops.linear_attention, chunk=24), make_inputs("linear_attention", "none"))


def test_softmax_attention_sees_no_later_key() -> None:
    q, k, v = (make_inputs("linear_attention", "none", time=8)[name] for name in "qkv")
    y = ops.softmax_attention(q, k, v)
    assert jnp.allclose(y[:, :1], v[:, :1])
    assert jnp.allclose(ops.softmax_attention(q[:, :5], k[:, :5], v[:, :5]), y[:, :5], atol=1e-6)


def test_short_convolution_goes_on_where_it_stopped() -> None:
    convolution = ops.ShortConvolution(6, 4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 9, 6))
    whole, recent = convolution(x, convolution.init_state(2))
    first, state = convolution(x[:, :2], convolution.init_state(2))
    second, state = convolution(x[:, 2:], state)
    assert jnp.allclose(jnp.concatenate([first, second], axis=1), whole, atol=1e-6)
    assert jnp.array_equal(state, recent)
    assert jnp.allclose(whole[:, 3], jnp.sum(convolution.kernel[...] * x[:, :4], axis=1), atol=1e-6)


@pytest.mark.parametrize("norm", [ops.l2_normalize, ops.rms_norm])
def test_norms_of_zero_are_zero_with_a_finite_gradient(norm: Callable) -> None:
    assert jnp.array_equal(norm(jnp.zeros(4)), jnp.zeros(4))
    assert jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(norm(x)))(jnp.zeros(4))))
