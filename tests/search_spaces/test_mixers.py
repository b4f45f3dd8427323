"""Every baseline keeps the candidate's contract: shapes, causality, decoding step by step, a gradient everywhere."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import Array

from nas.loading import load_mixer
from search_spaces.linear_attention.space import SPACE

BASELINES = sorted(SPACE.baselines())
MIXERS = {**SPACE.baselines(), **SPACE.outside_references()}
BATCH, TIME, WIDTH, HEADS = 2, 37, 16, 2


def make_mixer(name: str) -> nnx.Module:
    """A mixer with random parameters: what is wrong behind a zero must show."""
    mixer = load_mixer(MIXERS[name].source)(WIDTH, HEADS, rngs=nnx.Rngs(0))
    graph, params = nnx.split(mixer)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, noisy))


def make_input(time: int = TIME) -> Array:
    return jax.random.normal(jax.random.key(2), (BATCH, time, WIDTH))


@pytest.mark.parametrize("name", MIXERS)
def test_output_has_the_shape_and_dtype_of_the_input(name: str) -> None:
    mixer = make_mixer(name)
    for time, dtype in ((1, jnp.float32), (TIME, jnp.float32), (TIME, jnp.bfloat16)):
        x = make_input(time).astype(dtype)
        y = jax.eval_shape(mixer, x)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("name", MIXERS)
def test_no_output_sees_a_later_input(name: str) -> None:
    mixer, x = jax.jit(make_mixer(name)), make_input()
    y = mixer(x)
    for time in (1, 15, 16, 17, 32, 36):
        noise = 3.0 * jax.random.normal(jax.random.key(time), x[:, time:].shape)
        assert jnp.allclose(mixer(x.at[:, time:].set(noise))[:, :time], y[:, :time], atol=1e-5), time


@pytest.mark.parametrize("name", BASELINES)
def test_step_over_time_is_the_call(name: str) -> None:
    mixer, x = make_mixer(name), make_input()
    state, y = jax.lax.scan(lambda state, x_t: mixer.step(x_t, state)[::-1], mixer.init_state(BATCH), x.swapaxes(0, 1))
    assert jnp.allclose(y.swapaxes(0, 1), mixer(x), atol=1e-4)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, mixer.init_state(BATCH))


@pytest.mark.parametrize("name", MIXERS)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    graph, params = nnx.split(make_mixer(name))
    x = make_input()
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(nnx.merge(graph, params)(x)))))(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert jnp.all(jnp.isfinite(leaf)) and jnp.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", BASELINES)
def test_layers_can_be_stacked_and_scanned(name: str) -> None:
    mixer_class = load_mixer(MIXERS[name].source)
    graph, _ = nnx.split(mixer_class(WIDTH, HEADS, rngs=nnx.Rngs(0)))
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.vmap(lambda key: nnx.split(mixer_class(WIDTH, HEADS, rngs=nnx.Rngs(key)))[1])(keys)
    y, _ = jax.lax.scan(lambda x, params: (x + nnx.merge(graph, params)(x), None), make_input(), stacked)
    assert jnp.all(jnp.isfinite(y))
