"""Training: equal parameters, equal data, and a trial that goes on where it stopped."""

import json
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import SPACE
from flax import nnx

from nas.loading import load_mixer
from nas.model import LanguageModel, bits_per_token, count_params
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.feed import batches, held_out_windows
from nas.tasks.floors import bigram_bits_per_byte
from nas.tasks.reader import read_tokens
from nas.train import (
    Programs,
    complete_checkpoints,
    dispatch_size,
    evaluate_windows,
    language_loss,
    scored_bits,
    train,
)

TINY = ModelSettings(width=16, heads=2, layers=2)
SHORT = TrainSettings(steps=24, batch=4, time=32, learning_rate=1e-2, grid=(1.0,), steps_per_dispatch=6)
BASELINES = {**SPACE.baselines(), **SPACE.outside_references()}
EXPLODES = """
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return x * jnp.exp(1e4 * (self.scale[...] - 0.95))
"""
USELESS = """
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        return self.mix(x)
"""


def programs(source, settings=SHORT):
    return Programs(load_mixer(source), TINY, settings, language_loss, scored_bits)


def run(source, corpus, folder, settings=SHORT, rungs=(6, 12, 24), floor=None, told=None, **more):
    sent = [] if told is None else told
    data = {split: read_tokens(corpus.file(split)) for split in ("train", "validation")}
    result = train(source, TINY, settings, data, 8, rungs, floor, folder, sent.append, **more)
    return result, [message["rung"] for message in sent]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("settings", [ModelSettings(width=64, heads=2), ModelSettings()], ids=["small", "base"])
def test_every_baseline_gives_a_model_of_equal_size(name, settings):
    model = nnx.eval_shape(lambda: LanguageModel(load_mixer(BASELINES[name].source), settings, rngs=nnx.Rngs(0)))
    embedding_and_norm = settings.width * (256 + 1)
    expected = settings.layers * settings.layer_params * settings.width**2 + embedding_and_norm
    assert count_params(model) == pytest.approx(expected, rel=0.02)


def test_a_mixer_that_leaves_no_room_for_the_mlp_is_refused():
    greedy = USELESS.replace("nnx.Linear(width, width, rngs=rngs)", "nnx.Linear(width, 12 * width, rngs=rngs)")
    with pytest.raises(ValueError, match="too few are left"):
        LanguageModel(load_mixer(greedy), TINY, rngs=nnx.Rngs(0))


def test_no_parameter_is_weakly_typed():
    """A step would give it a strong type, and with it the program that takes it would be another one."""
    weak = USELESS.replace("self.mix = ", "self.share = nnx.Param(jnp.full((width,), 0.5))\n        self.mix = ")
    source = "import jax.numpy as jnp\n" + weak.replace("self.mix(x)", "self.mix(x) * self.share[...]")
    state, _ = programs(source).initialize(0)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_a_traced_seed_gives_the_parameters_of_that_seed():
    source = BASELINES["gated_deltanet"].source
    compiled = programs(source)
    for seed in (0, 7, 2**31 - 1):
        state, _ = compiled.initialize(seed)
        model = LanguageModel(load_mixer(source), TINY, rngs=nnx.Rngs(seed))
        for traced, plain in zip(
            jax.tree.leaves(state["params"]), jax.tree.leaves(nnx.state(model, nnx.Param)), strict=True
        ):
            np.testing.assert_allclose(traced, plain, rtol=1e-5, atol=1e-6)


def test_a_step_is_optax_adamw_at_that_peak_learning_rate(corpus):
    """The slow definition: Optax's own AdamW with clipping, at a peak that is not traced."""
    compiled = programs(BASELINES["deltanet"].source)
    state, constants = compiled.initialize(3)
    windows = batches(read_tokens(corpus.file("train")), SHORT, 0, 6)
    warmup = round(SHORT.warmup * SHORT.steps)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-2, warmup, SHORT.steps, 2e-3)
    mask = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim - ("layers" in jax.tree_util.keystr(path)) >= 2, state["params"]
    )
    plain = optax.chain(optax.clip_by_global_norm(SHORT.clip), optax.adamw(schedule, weight_decay=0.1, mask=mask))
    params, moments = state["params"], plain.init(state["params"])
    gradient_of = jax.jit(jax.grad(lambda params, window: language_loss(compiled.model(params, constants), window)))
    for window in windows:
        gradient = gradient_of(params, jnp.asarray(window))
        updates, moments = plain.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
    stepped, _ = compiled.steps(state, constants, 2e-2, windows)
    for ours, theirs in zip(jax.tree.leaves(stepped["params"]), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_a_batch_in_parts_is_the_batch(corpus):
    source = BASELINES["linear_attention"].source
    windows = batches(read_tokens(corpus.file("train")), SHORT, 0, 6)
    stepped = {}
    for accumulate in (1, 2, 4):
        compiled = programs(source, replace(SHORT, accumulate=accumulate))
        state, constants = compiled.initialize(0)
        state, losses = compiled.steps(state, constants, 1e-2, windows)
        stepped[accumulate] = [losses, *jax.tree.leaves(state["params"])]
    for accumulate in (2, 4):
        for ours, theirs in zip(stepped[accumulate], stepped[1], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_runs_side_by_side_are_runs_one_after_the_other(corpus):
    compiled = programs(BASELINES["linear_attention"].source)
    seeds, rates = [0, 5], [1e-2, 3e-3]
    data = read_tokens(corpus.file("train"))
    windows = np.stack([batches(data, replace(SHORT, seed=seed), 0, 6) for seed in seeds])
    states, constants = compiled.initialize_all(seeds)
    states, losses = compiled.steps_of_all(states, constants, rates, windows)
    for run, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        state, alone = compiled.initialize(seed)
        state, expected = compiled.steps(state, alone, rate, windows[run])
        np.testing.assert_allclose(losses[run], expected, rtol=1e-4)
        for ours, theirs in zip(jax.tree.leaves(states["params"]), jax.tree.leaves(state["params"]), strict=True):
            np.testing.assert_allclose(ours[run], theirs, rtol=2e-3, atol=2e-4)


def test_the_grid_goes_on_with_its_best_learning_rate(corpus, tmp_path):
    """With what that rate alone would have come to, also where others diverge."""
    source = BASELINES["linear_attention"].source
    alone = {
        multiple: run(source, corpus, tmp_path / str(multiple), replace(SHORT, grid=(multiple,)))[1]
        for multiple in (1e-4, 1.0)
    }
    result, rungs = run(source, corpus, tmp_path / "grid", replace(SHORT, grid=(1e-4, 1.0, 1e30)))
    assert result == {"trained": True}
    assert [rung["learning_rate"] for rung in rungs] == [SHORT.learning_rate] * 3
    assert [rung["bits_per_byte"] for rung in rungs] == [rung["bits_per_byte"] for rung in alone[1.0]]
    assert rungs[0]["bits_per_byte"] < alone[1e-4][0]["bits_per_byte"]


def test_a_trial_goes_on_with_the_learning_rate_that_its_grid_chose(corpus, tmp_path):
    source, settings = BASELINES["linear_attention"].source, replace(SHORT, grid=(1e-4, 1.0))
    _, whole = run(source, corpus, tmp_path / "whole", settings)
    run(source, corpus, tmp_path / "parts", settings, rungs=(6, 12))
    _, rest = run(source, corpus, tmp_path / "parts", settings)
    assert rest[-1]["bits_per_byte"] == whole[-1]["bits_per_byte"]


def test_the_model_sees_no_later_byte():
    model = LanguageModel(load_mixer(BASELINES["deltanet"].source), TINY, rngs=nnx.Rngs(0))
    windows = np.random.default_rng(0).integers(0, 256, (2, 33)).astype(np.uint8)
    changed = windows.copy()
    changed[:, 20:] ^= 1
    same, other = (np.asarray(bits_per_token(model, jnp.asarray(w))) for w in (windows, changed))
    np.testing.assert_array_equal(same[:, :19], other[:, :19])
    assert (same[:, 19:] != other[:, 19:]).any()


def test_a_fresh_model_guesses_almost_uniformly():
    model = LanguageModel(load_mixer(USELESS), TINY, rngs=nnx.Rngs(0))
    windows = np.random.default_rng(0).integers(0, 256, (16, 65)).astype(np.uint8)
    assert float(bits_per_token(model, jnp.asarray(windows)).mean()) == pytest.approx(8, abs=1)


def test_training_lowers_the_loss_and_the_numbers_are_whole(corpus, tmp_path):
    result, rungs = run(BASELINES["gated_deltanet"].source, corpus, tmp_path)
    assert result == {"trained": True}
    assert [rung["step"] for rung in rungs] == [6, 12, 24]
    assert rungs[-1]["bits_per_byte"] < rungs[0]["bits_per_byte"] < 8
    assert rungs[-1]["flops_per_token"] > 2 * TINY.layers * TINY.layer_params * TINY.width**2
    assert all(np.isfinite(value) for rung in rungs for value in rung.values())


def test_a_trial_interrupted_at_a_rung_ends_as_if_it_had_not_been(corpus, tmp_path):
    source = BASELINES["gated_deltanet"].source
    _, whole = run(source, corpus, tmp_path / "whole")
    run(source, corpus, tmp_path / "parts", rungs=(6, 12))
    _, rest = run(source, corpus, tmp_path / "parts")
    assert [rung["step"] for rung in rest] == [6, 12, 24], "the scheduler hears again of the rungs before"
    assert rest[1] == kept_beside(tmp_path / "parts")["measured"][1], "which are not trained again"
    assert rest[-1]["bits_per_byte"] == whole[-1]["bits_per_byte"]
    _, again = run(source, corpus, tmp_path / "parts")
    assert again[-1]["bits_per_byte"] == whole[-1]["bits_per_byte"], "its outcome can still be told"
    assert len(complete_checkpoints(tmp_path / "parts")) == 1


def kept_beside(checkpoints):
    """What is kept beside the newest checkpoint."""
    return json.loads((checkpoints / complete_checkpoints(checkpoints)[-1]).with_suffix(".json").read_text())


def test_a_preempted_trial_ends_as_if_it_had_not_been(corpus, tmp_path):
    source, settings = BASELINES["linear_attention"].source, replace(SHORT, steps_per_dispatch=3)
    told = []
    _, whole = run(source, corpus, tmp_path / "whole", settings)
    result, _ = run(source, corpus, tmp_path, settings, preempted=lambda: True)
    assert result == {"crashed": {"cause": "preempted", "reason": "at step 6"}}, "its learning rate is chosen first"
    result, _ = run(source, corpus, tmp_path, settings, preempted=lambda: True)
    assert result == {"crashed": {"cause": "preempted", "reason": "at step 9"}}, "between two rungs"
    assert complete_checkpoints(tmp_path) == ["00000009"]
    spent = kept_beside(tmp_path)["train_seconds"]
    result, rungs = run(source, corpus, tmp_path, settings, told=told)
    assert result == {"trained": True}
    assert [rung["bits_per_byte"] for rung in rungs] == [rung["bits_per_byte"] for rung in whole]
    assert [message["decided"] for message in told] == [True, False, False], "it has gone on from the first rung before"
    assert rungs[0]["train_seconds"] < spent < rungs[1]["train_seconds"]


def test_a_half_written_checkpoint_is_passed_over(corpus, tmp_path):
    source = BASELINES["linear_attention"].source
    run(source, corpus, tmp_path, rungs=(6,))
    (tmp_path / "00000012.orbax-checkpoint-tmp-0").mkdir()
    _, rungs = run(source, corpus, tmp_path, rungs=(6, 12))
    assert [rung["step"] for rung in rungs] == [6, 12]


def test_a_loss_that_is_not_finite_ends_the_trial(corpus, tmp_path):
    result, rungs = run(EXPLODES, corpus, tmp_path)
    assert result["crashed"]["cause"] == "diverged"
    assert not rungs


def test_a_loss_above_the_bigram_floor_ends_the_trial_at_a_quarter(corpus, tmp_path):
    settings = replace(SHORT, steps=400, learning_rate=1e-9, steps_per_dispatch=50)
    result, rungs = run(USELESS, corpus, tmp_path, settings, rungs=(50, 100, 400), floor=corpus.bigram_bits_per_byte)
    assert result["crashed"]["cause"] == "floor"
    assert "step 100" in result["crashed"]["reason"]
    assert [rung["step"] for rung in rungs] == [50, 100], "what was measured is told all the same"


def test_batches_are_a_function_of_seed_and_step():
    data = np.arange(5000, dtype=np.uint32).astype(np.uint8)
    together = batches(data, SHORT, 0, 10)
    apart = np.concatenate([batches(data, SHORT, first, 5) for first in (0, 5)])
    np.testing.assert_array_equal(together, apart)
    assert together.shape == (10, SHORT.batch, SHORT.time + 1)
    assert (batches(data, replace(SHORT, seed=1), 0, 10) != together).any()


@pytest.mark.parametrize(
    ("rungs", "most", "size"), [((75, 150, 300), 25, 25), ((10, 20, 40), 25, 10), ((7,), 25, 7), ((50, 101), 25, 1)]
)
def test_one_program_serves_every_stretch_between_rungs(rungs, most, size):
    assert dispatch_size(rungs, most) == size


def test_evaluation_does_not_depend_on_the_batch():
    windows = held_out_windows(np.random.default_rng(0).integers(0, 256, 999).astype(np.uint8), 10, 32)
    for batch in (1, 3, 4, 10, 16):
        measured = evaluate_windows(lambda params, part: part[:, 0].astype(float), None, windows, batch)
        np.testing.assert_array_equal(measured, windows[:, 0])


def test_the_bigram_floor_is_the_entropy_of_pairs():
    alternating = np.tile(np.array([65, 66], np.uint8), 5000)
    assert bigram_bits_per_byte(alternating, alternating) < 0.01
    noise = np.random.default_rng(0).integers(0, 256, 3_000_000).astype(np.uint8)
    assert bigram_bits_per_byte(noise, noise[:10000]) == pytest.approx(8, abs=0.1)


def test_settings_cross_a_pipe():
    assert TrainSettings(**asdict(SHORT)) == SHORT
