"""The other state updates agree with their definitions, and the small layers and feature maps do what they say.

A form is listed once in FORMS, and every test over the collection takes it in. Bars are relative root mean squares.
float32: 1e-5 for outputs and states, the rounding of some hundred terms; 1e-4 for gradients, which sum over time once
more. bfloat16: .005 for outputs, of which rounding the output alone takes .002; .008 for gradients, .02 for those of
gates, as flash-linear-attention asks of its kernels. The definition has float32 inputs of the same rounded values.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array, lax

from search_spaces.linear_attention.ops import features, layers
from search_spaces.linear_attention.ops.mlstm import mlstm, recurrent_mlstm, running_log_scale, step_mlstm
from search_spaces.linear_attention.ops.recurrence import (
    linear_recurrence,
    recurrent_linear_recurrence,
    step_linear_recurrence,
)
from search_spaces.linear_attention.ops.rotary import rotary
from search_spaces.linear_attention.ops.softmax import masked_attention, softmax_attention
from search_spaces.linear_attention.ops.window import (
    sliding_window_attention,
    step_sliding_window_attention,
    window_state,
)

Inputs = dict[str, Any]
BATCH, HEADS, WINDOW = 2, 2, 24
SHAPES = ((1, 16, 24), (63, 128, 16), (64, 32, 64), (65, 16, 24), (200, 64, 32))  # time, key_dim, value_dim
SHORT = SHAPES[3]
LOG_DECAYS = {  # as drawn; strong; and none or all by turns, which clamping would break
    "drawn": lambda gate: -softplus(gate),
    "strong": lambda gate: np.full_like(gate, -20.0),
    "none or all": lambda gate: np.where(gate > 0, np.float32(0.0), np.float32(-20.0)),
}
INPUT_GATES = {
    "drawn": lambda gate: gate,
    "strong": lambda gate: np.full_like(gate, 20.0),
    "none or all": lambda gate: np.where(gate > 0, np.float32(20.0), np.float32(-20.0)),
}


class Form(NamedTuple):
    """A state update: `fast` and `slow` take inputs over time and `initial_state`, `step` one token's and `state`."""

    fast: Callable[..., Any]
    slow: Callable[..., Any]
    step: Callable[..., Any]
    draw: Callable[..., tuple[Inputs, Any]]


class Draw:
    """Standard normal numbers in float32, from NumPy: it compiles nothing for a new shape."""

    def __init__(self, seed: int = 0):
        self.generator = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        return self.generator.standard_normal(shape, np.float32)

    def unit(self, *shape: int) -> np.ndarray:
        x = self(*shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(np.float32(0.0), x)


def draw_mlstm(draw: Draw, time: int, key_dim: int, value_dim: int, gates: str) -> tuple[Inputs, Any]:
    inputs = draw_qkv(draw, time, key_dim, value_dim)
    inputs["input_gate"] = INPUT_GATES[gates](draw(BATCH, time, HEADS))
    inputs["log_forget"] = LOG_DECAYS[gates](draw(BATCH, time, HEADS))
    memory, normalizer = draw(BATCH, HEADS, key_dim, value_dim), draw(BATCH, HEADS, key_dim)
    if gates != "drawn":
        # The read divides by |n . q|, unless that is below 1. A write of strength e^20 leaves it above 1 always: then n
        # and q of both signs meet at nearly zero, where the function itself is as good as discontinuous.
        inputs |= {"q": softplus(inputs["q"]), "k": softplus(inputs["k"])}
        normalizer = softplus(normalizer)
    return inputs, (memory, normalizer, draw(BATCH, HEADS))


def draw_recurrence(draw: Draw, time: int, key_dim: int, value_dim: int, gates: str) -> tuple[Inputs, Any]:
    shape = (BATCH, time, HEADS, key_dim)
    return {"x": draw(*shape), "log_decay": LOG_DECAYS[gates](draw(*shape))}, draw(BATCH, HEADS, key_dim)


def draw_window(draw: Draw, time: int, key_dim: int, value_dim: int, gates: str) -> tuple[Inputs, Any]:
    """The state has seen fewer tokens than fit: the first places are empty."""
    past = draw_qkv(draw, WINDOW - 1, key_dim, value_dim)
    valid = np.broadcast_to(np.float32(np.arange(WINDOW - 1) >= 7), (BATCH, WINDOW - 1))
    return draw_qkv(draw, time, key_dim, value_dim), (past["k"], past["v"], valid)


def draw_qkv(draw: Draw, time: int, key_dim: int, value_dim: int) -> Inputs:
    dims = {"q": key_dim, "k": key_dim, "v": value_dim}
    return {name: draw(BATCH, time, HEADS, dim) for name, dim in dims.items()}


def band_attention(q: Array, k: Array, v: Array, initial_state: Any, turned: bool) -> tuple[Array, Any]:
    """The definition of a sliding window: softmax over the whole past under a mask."""
    past = initial_state[0].shape[1]
    valid = jnp.concatenate([initial_state[2], jnp.ones(q.shape[:2])], axis=1)
    k, v = jnp.concatenate([initial_state[0], k], axis=1), jnp.concatenate([initial_state[1], v], axis=1)
    distance = past + jnp.arange(q.shape[1])[:, None] - jnp.arange(k.shape[1])
    mask = (distance >= 0) & (distance <= past) & (valid[0] > 0)
    y = masked_attention(rotary(q, past), rotary(k, 0), v, mask) if turned else masked_attention(q, k, v, mask)
    return y, tuple(x[:, q.shape[1] :] for x in (k, v, valid))


FORMS = {
    "mlstm": Form(partial(mlstm, chunk=16), recurrent_mlstm, step_mlstm, draw_mlstm),
    "linear_recurrence": Form(linear_recurrence, recurrent_linear_recurrence, step_linear_recurrence, draw_recurrence),
    "linear_recurrence in chunks": Form(
        partial(linear_recurrence, chunk=16), recurrent_linear_recurrence, step_linear_recurrence, draw_recurrence
    ),
    "sliding_window_attention": Form(
        partial(sliding_window_attention, window=WINDOW, rotary=False),
        partial(band_attention, turned=False),
        partial(step_sliding_window_attention, rotary=False),
        draw_window,
    ),
    "sliding_window_attention with rotary": Form(
        partial(sliding_window_attention, window=WINDOW),
        partial(band_attention, turned=True),
        step_sliding_window_attention,
        draw_window,
    ),
}
GATES = ("input_gate", "log_forget", "log_decay")


def make(form: str, shape: tuple[int, int, int], gates: str = "drawn") -> tuple[Inputs, Any]:
    return FORMS[form].draw(Draw(), *shape, gates)


def cut(inputs: Inputs, start: int, stop: int) -> Inputs:
    return {name: x[:, start:stop] for name, x in inputs.items()}


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Inputs and initial state -> their gradients, output, last state; every output and number of state matters."""

    def weight(x: Array) -> Array:
        return jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)

    def loss(inputs: Inputs, state: Any) -> tuple[Array, Any]:
        y, last = function(**inputs, initial_state=state)
        total = sum(jnp.sum(weight(x) * jnp.sin(x.astype(jnp.float32))) for x in [y, *jax.tree.leaves(last)])
        return total, (y, last)

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


def error(actual: Any, expected: Any) -> float:
    """Root mean square of the difference, relative to the expected one's, or to 1e-3 where that is smaller.

    What a decay of -20 lets through has a gradient of about 1e-9, below what float32 sums resolve.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.sqrt(np.mean((actual - expected) ** 2)) / max(np.sqrt(np.mean(expected**2)), 1e-3))


def worst(actual: Any, expected: Any) -> float:
    """The largest error of two trees."""
    return max(jax.tree.leaves(jax.tree.map(error, actual, expected)))


def error_of_all(actual: Any, expected: Any) -> float:
    """The error of two trees, each as one vector.

    For gradients of a state: that of mLSTM's m is a difference of terms as large as the others, and where the output
    does not depend on m nothing is left of it but rounding, in the definition too.
    """
    return error(*(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (actual, expected)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_the_fast_form_agrees_with_the_definition(form: str, shape: tuple[int, int, int]) -> None:
    fast, slow = gradient(FORMS[form].fast), gradient(FORMS[form].slow)
    for gates in LOG_DECAYS if FORMS[form].draw is not draw_window else ["drawn"]:
        inputs, state = make(form, shape, gates)
        actual, (y, last) = fast(inputs, state)
        expected, (slow_y, slow_last) = slow(inputs, state)
        assert error(y, slow_y) < 1e-5, gates
        assert worst(last, slow_last) < 1e-5, gates
        assert worst(actual[0], expected[0]) < 1e-4, gates
        assert error_of_all(actual[1], expected[1]) < 1e-4, gates


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_in_and_out_with_a_state_in_full(form: str) -> None:
    inputs, state = make(form, SHORT)
    half = {name: x.astype(jnp.bfloat16) for name, x in inputs.items()}
    actual, (y, last) = gradient(FORMS[form].fast)(half, state)
    rounded = {name: x.astype(np.float32) for name, x in half.items()}
    expected, (slow_y, slow_last) = gradient(FORMS[form].slow)(rounded, state)
    assert y.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(last)} == {np.dtype("float32")}
    assert error(y, slow_y) < 0.005
    assert worst(last, slow_last) < 1e-5
    assert error_of_all(actual[1], expected[1]) < 0.008
    for name in inputs:
        assert error(actual[0][name], expected[0][name]) < (0.02 if name in GATES else 0.008), name


@pytest.mark.parametrize("form", FORMS)
def test_step_over_time_is_the_call(form: str) -> None:
    inputs, state = make(form, SHORT)
    moving = {name: np.moveaxis(x, 1, 0) for name, x in inputs.items()}

    def token(state: Any, now: Inputs) -> tuple[Any, Array]:
        y, state = FORMS[form].step(**now, state=state)
        return state, y

    last, y = jax.jit(lambda state, moving: lax.scan(token, state, moving))(state, moving)
    whole, expected = jax.jit(FORMS[form].fast)(**inputs, initial_state=state)
    assert error(np.moveaxis(y, 0, 1), whole) < 1e-5
    assert worst(last, expected) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_a_state_handed_on_continues_the_sequence(form: str) -> None:
    """From no state at all; the first part is shorter than a window and no whole number of chunks."""
    function, (inputs, _) = jax.jit(FORMS[form].fast), make(form, SHORT)
    whole, last = function(**inputs)
    first, state = function(**cut(inputs, 0, 23))
    second, state = function(**cut(inputs, 23, SHORT[0]), initial_state=state)
    assert error(np.concatenate([first, second], axis=1), whole) < 1e-5
    assert worst(state, last) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_no_output_sees_a_later_input(form: str) -> None:
    function, (inputs, state) = jax.jit(FORMS[form].fast), make(form, SHORT)
    y, _ = function(**inputs, initial_state=state)
    for changed in (1, 31, 32, 48, 64):
        others = {name: np.array(x) for name, x in inputs.items()}
        for x in others.values():
            x[:, changed:] *= 3.0
        after, _ = function(**others, initial_state=state)
        assert np.array_equal(after[:, :changed], y[:, :changed]), changed
        assert not np.array_equal(after[:, changed], y[:, changed]), changed


def test_mlstm_computes_what_it_says_without_a_log_scale() -> None:
    """In gates so mild that nothing need be measured against m: values, and gradients, which take m for a constant."""
    inputs, _ = make("mlstm", SHORT)

    def plain(q: Array, k: Array, v: Array, input_gate: Array, log_forget: Array) -> Array:
        total = jnp.cumsum(log_forget, axis=1)
        weights = jnp.exp(total[:, :, None] - total[:, None] + input_gate[:, None])  # batch, i, j, heads
        scores = jnp.tril(jnp.einsum("bihd,bjhd,bijh->bhij", q, k, weights)) * q.shape[-1] ** -0.5
        weight = jnp.maximum(jnp.abs(scores.sum(-1)), 1.0)[..., None]
        return jnp.einsum("bhij,bjhd->bihd", scores / weight, v)

    def loss(function: Callable[..., Array]) -> Callable[..., Any]:
        return jax.jit(jax.grad(lambda z: (lambda y: (jnp.sum(jnp.sin(y)), y))(function(**z)), has_aux=True))

    actual, y = loss(lambda **z: mlstm(**z)[0])(inputs)
    expected, plain_y = loss(plain)(inputs)
    assert error(y, plain_y) < 1e-5
    assert worst(actual, expected) < 1e-4


def test_mlstm_has_finite_gradients_at_the_limits_of_its_gates() -> None:
    inputs, state = make("mlstm", SHORT)
    function, shape = gradient(FORMS["mlstm"].fast), inputs["input_gate"].shape
    for i in (-20.0, 20.0):
        for f in (-20.0, 20.0):
            inputs |= {
                "input_gate": np.full(shape, i, np.float32),
                "log_forget": -softplus(np.full(shape, -f, np.float32)),
            }
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(function(inputs, state))), (i, f)


@pytest.mark.parametrize("gates", LOG_DECAYS)
def test_mlstm_stays_exact_over_long_sequences(gates: str) -> None:
    """The log decays sum up to thousands, of which float32 keeps three decimals."""
    inputs, state = make("mlstm", (2048, 4, 4), gates)
    y, last = jax.jit(mlstm)(**inputs, initial_state=state)
    slow_y, slow_last = jax.jit(recurrent_mlstm)(**inputs, initial_state=state)
    assert error(y, slow_y) < 1e-5
    assert worst(last, slow_last) < 1e-5


def test_the_running_log_scale_is_the_same_in_chunks() -> None:
    inputs, (_, _, initial) = make("mlstm", SHORT, "none or all")
    in_chunks, whole = (jax.jit(partial(running_log_scale, chunk=chunk)) for chunk in (8, SHORT[0]))
    gates = inputs["input_gate"], inputs["log_forget"], initial
    assert np.allclose(in_chunks(*gates), whole(*gates), atol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 65, 300])
def test_a_window_of_any_length_works(window: int) -> None:
    inputs, _ = make("sliding_window_attention", SHORT)
    empty = window_state(BATCH, HEADS, *SHORT[1:], window)
    y, state = jax.jit(partial(sliding_window_attention, window=window))(**inputs)
    expected, _ = jax.jit(partial(band_attention, turned=True))(**inputs, initial_state=empty)
    assert error(y, expected) < 1e-5
    assert [x.shape[1] for x in state] == [window - 1] * 3
    assert np.sum(state[2]) == BATCH * min(window - 1, SHORT[0])


def test_sequences_of_a_batch_may_have_pasts_of_different_lengths() -> None:
    inputs, past = make("sliding_window_attention", SHORT)
    empty = jax.tree.map(np.zeros_like, past)
    mixed = jax.tree.map(lambda full, empty: np.concatenate([full[:1], empty[1:]]), past, empty)
    function = jax.jit(partial(sliding_window_attention, window=WINDOW))
    of_past, of_empty, of_both = (function(**inputs, initial_state=state)[0] for state in (past, empty, mixed))
    assert np.array_equal(of_both, np.concatenate([of_past[:1], of_empty[1:]]))


def test_rotary_turns_pairs_of_channels() -> None:
    x, start = Draw()(2, 5, 3, 8), np.array([0, 7], np.int32)
    angle = (start[:, None] + np.arange(5))[..., None, None] * 100.0 ** (-np.arange(4) / 4)
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angle)
    actual = jax.jit(partial(rotary, base=100.0))(x, start)
    assert np.allclose(actual, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


def test_rotated_scores_depend_on_differences_of_positions_only() -> None:
    q, k = Draw().unit(2, 2, 9, 1, 16)
    turn = jax.jit(rotary)
    near, far = (np.einsum("bihd,bjhd->bhij", turn(q, start), turn(k, start)) for start in (0, 1000))
    assert np.allclose(near, far, atol=1e-4)  # angles near 1000 are known to 3e-5
    assert not np.allclose(near, np.einsum("bihd,bjhd->bhij", q, k), atol=0.1)


def test_rotary_leaves_an_odd_last_channel_alone_and_keeps_the_dtype() -> None:
    x = Draw()(2, 5, 3, 7).astype(jnp.bfloat16)
    y = jax.jit(rotary)(x, 300)
    assert y.dtype == x.dtype
    assert np.array_equal(y[..., -1], x[..., -1])
    assert np.array_equal(jax.jit(rotary)(x[..., :1], 3), x[..., :1])


def test_softmax_attention_sees_no_later_key() -> None:
    q, k, v = draw_qkv(Draw(), 8, 16, 6).values()
    function = jax.jit(softmax_attention)
    y = function(q, k, v)
    assert np.allclose(y[:, :1], v[:, :1], atol=1e-6)
    assert np.allclose(function(q[:, :5], k[:, :5], v[:, :5]), y[:, :5], atol=1e-6)


def test_short_convolution_goes_on_where_it_stopped() -> None:
    convolution = layers.ShortConvolution(6, 4, rngs=nnx.Rngs(0))
    x, empty = jnp.asarray(Draw()(2, 9, 6)), convolution.init_state(2)
    whole, recent = convolution(x, empty)
    first, state = convolution(x[:, :2], empty)
    second, state = convolution(x[:, 2:], state)
    assert np.allclose(np.concatenate([first, second], axis=1), whole, atol=1e-6)
    assert np.array_equal(state, recent)


@pytest.mark.parametrize("size", [1, 4])
def test_short_convolution_is_a_convolution_of_each_channel(size: int) -> None:
    x, kernel = Draw()(2, 9, 6), Draw(1)(size, 6)
    y, _ = jax.jit(layers.short_convolution)(x, kernel, np.zeros((2, size - 1, 6), np.float32))
    assert np.allclose(y[1, :, 5], np.convolve(x[1, :, 5], kernel[::-1, 5])[:9], atol=1e-5)


@pytest.mark.parametrize("norm", [layers.l2_normalize, layers.rms_norm, layers.layer_norm])
def test_norms_of_zero_are_zero_with_a_finite_gradient(norm: Callable[[Array], Array]) -> None:
    assert np.array_equal(norm(jnp.zeros(4)), np.zeros(4))
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(norm(x)))(jnp.zeros(4))))


def test_layer_norm_has_mean_zero_and_variance_one() -> None:
    y = np.asarray(jax.jit(layers.layer_norm)(5.0 + 3.0 * Draw()(2, 3, 64)))
    assert np.allclose(y.mean(axis=-1), 0.0, atol=1e-5)
    assert np.allclose(y.var(axis=-1), 1.0, atol=1e-4)


def test_gated_rms_norm_forgets_the_size_of_the_read_and_keeps_its_dtype() -> None:
    y, gate, scale = Draw()(2, 5, 3, 8), Draw(1)(2, 5, 3, 8), np.linspace(0.5, 2.0, 24, dtype=np.float32).reshape(3, 8)
    function = jax.jit(layers.gated_rms_norm)
    expected = y / np.sqrt(np.mean(y**2, axis=-1, keepdims=True)) * scale * gate
    assert np.allclose(function(100.0 * y, scale, gate), expected, atol=1e-5)
    assert function(y.astype(jnp.bfloat16), scale, gate.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_hedgehog_is_positive_sums_to_one_and_swaps_halves_for_the_opposite() -> None:
    z, function = Draw()(3, 8), jax.jit(features.hedgehog)
    phi = function(z)
    assert np.all(phi > 0)
    assert np.allclose(np.sum(phi, axis=-1), 1.0)
    assert np.allclose(function(-z), np.roll(phi, 8, axis=-1))


def test_products_of_taylor_features_are_the_series_of_exp() -> None:
    a, b = 0.5 * Draw()(2, 50, 16)
    s, product = np.sum(a * b, axis=-1), np.sum(np.prod(jax.jit(features.taylor)(np.stack([a, b])), axis=0), axis=-1)
    assert features.taylor(jnp.asarray(a)).shape == (50, 1 + 16 + 16 * 17 // 2)
    assert np.allclose(product, 1.0 + s + s**2 / 2.0, atol=1e-4)
    small = np.abs(s) < 0.5
    assert np.any(small)
    assert np.all(np.abs(product - np.exp(s))[small] < 0.5**3 / 6 * np.exp(0.5) + 1e-4)  # Lagrange's remainder


@pytest.mark.parametrize("shifts", [1, 3])
def test_dpfp_makes_opposites_orthogonal(shifts: int) -> None:
    z, function = Draw()(20, 8), jax.jit(partial(features.dpfp, shifts=shifts))
    phi = function(z)
    assert phi.shape == (20, 16 * shifts)
    assert np.all(phi >= 0)
    assert np.all(phi * function(-z) == 0)
    assert np.allclose(function(3.0 * z), 9.0 * phi, rtol=1e-5)
    r = np.maximum(np.concatenate([z, -z], axis=-1), 0.0)
    assert np.allclose(phi[:, :16], r * r[:, np.arange(16) - 1])
