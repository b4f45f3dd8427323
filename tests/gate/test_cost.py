"""The FLOP counter against counts made by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from nas.gate import flops
from nas.gate.cost import UnknownTripCount, count

A, B = jnp.zeros((3, 5)), jnp.zeros((5, 7))


def matmuls(x, length):
    return jax.lax.scan(lambda c, _: (c @ B @ B.T, None), x, None, length=length)[0]


@jax.custom_vjp
def twice(x):
    return x + x


twice.defvjp(lambda x: (x + x, None), lambda _, g: (g + g,))

COUNTS = {
    "matmul": (lambda: A @ B, 2 * 3 * 5 * 7),
    "batched": (lambda: jnp.einsum("bij,bjk->bik", jnp.zeros((4, 3, 5)), jnp.zeros((4, 5, 7))), 4 * 2 * 3 * 5 * 7),
    "elementwise": (lambda: jnp.sin(A) + A, 2 * 15),
    "reduction": (lambda: A.sum(), 15),
    "reshape moves nothing": (lambda: jnp.transpose(A).reshape(15), 0),
    "scan": (lambda: matmuls(A, 11), 11 * 2 * (2 * 3 * 5 * 7)),
    "scan in a scan": (
        lambda: jax.lax.scan(lambda c, _: (matmuls(c, 11), None), A, None, length=2)[0],
        2 * 11 * 2 * (2 * 3 * 5 * 7),
    ),
    "fori_loop": (lambda: jax.lax.fori_loop(0, 6, lambda i, c: c * 2, A), 6 * (15 + 1)),  # and the counter
    "cond takes the dearer": (lambda: jax.lax.cond(A[0, 0] > 0, lambda: A + A, lambda: jnp.sin(A + A)), 30),
    "jit": (lambda: jax.jit(lambda a: a @ B)(A), 2 * 3 * 5 * 7),
    "remat": (lambda: jax.checkpoint(lambda a: a @ B)(A), 2 * 3 * 5 * 7),
    "custom vjp": (lambda: twice(A), 15),
    "fft": (lambda: jnp.fft.fft(jnp.zeros((4, 64), jnp.complex64)), 4 * 5 * 64 * 6),
    "sort": (lambda: jax.lax.sort(jnp.zeros(64)), 64 * 6),
    "cumsum": (lambda: jnp.cumsum(A, axis=0), 15),
    "convolution": (
        lambda: jax.lax.conv_general_dilated(jnp.zeros((2, 8, 16)), jnp.zeros((12, 8, 3)), (1,), "SAME"),
        2 * (2 * 12 * 16) * 8 * 3,
    ),
    "depthwise convolution": (
        lambda: jax.lax.conv_general_dilated(
            jnp.zeros((2, 8, 16)), jnp.zeros((8, 1, 3)), (1,), "SAME", feature_group_count=8
        ),
        2 * (2 * 8 * 16) * 3,
    ),
    "triangular solve": (
        lambda: jax.lax.linalg.triangular_solve(jnp.ones((6, 6)), jnp.zeros((6, 4)), left_side=True, lower=True),
        6 * 6 * 4,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    fn, expected = COUNTS[name]
    arithmetic = flops(fn)
    assert arithmetic == pytest.approx(expected, rel=0.02, abs=4), name


def test_gradient_of_a_matmul_costs_twice_the_forward_more():
    def loss(a, b):
        return (a @ b).sum()

    forward = 2 * 3 * 5 * 7
    assert flops(jax.grad(loss, argnums=(0, 1)), A, B) == pytest.approx(3 * forward, rel=0.2)


def test_of_a_linear_solve_what_solves_counts():
    solved = flops(
        lambda b: jax.lax.custom_linear_solve(lambda x: A @ (A.T @ x), b, lambda _, b: b * 2, symmetric=True), B[0, :3]
    )
    assert solved == 3


def test_takes_shapes_and_runs_nothing():
    aval = jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)
    assert flops(lambda a: a @ a, aval) == 2 * (1 << 20) ** 3


def test_a_loop_of_unknown_length_has_no_cost():
    with pytest.raises(UnknownTripCount):
        flops(lambda x: jax.lax.while_loop(lambda c: c < 10, lambda c: c * 2, x), 1.0)


def test_largest_intermediate_counts_the_stacked_output_of_a_scan():
    cost = count(jax.make_jaxpr(lambda: jax.lax.scan(lambda c, _: (c, c), A, None, length=100)[1])())
    assert cost.largest_bytes == 100 * 15 * 4


def test_moving_without_arithmetic_is_work():
    cost = count(jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 64, lambda i, c: jnp.roll(c, 1), x))(jnp.zeros(64)))
    assert cost.work >= 64 * 64
    assert cost.flops < 64 * 8
    assert math.isfinite(cost.flops)
