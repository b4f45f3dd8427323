"""The larger experiments: they compose, are of the size that they say, and their first steps can be taken."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from common import SPACE

from nas.configuration import ConfigurationError, composed, settings_of
from nas.loading import load_mixer
from nas.sandbox import Limits
from nas.settings import Settings
from nas.train import Programs, language_loss, scored_bits, train
from nas.trial import limits_of_training

GPT2 = 50_257  # tokens
TOKENS = ["path=tokens", "corpus.tokenizer=gpt2/tokenizer.json"]
REFERENCE = SPACE.baselines()[SPACE.reference].source
SIZES = {"asi_arch": 20e6, "asi_arch_340m": 340e6}


def experiment(name: str, *overrides: str) -> Settings:
    return settings_of(composed([f"experiment={name}", *TOKENS, *overrides]))


def programs_of(settings: Settings) -> tuple[Programs, dict]:
    """Its programs, and the shapes of what they train: nothing is allocated."""
    mixer = load_mixer(REFERENCE)
    programs = Programs(mixer, settings.model, settings.train, language_loss, scored_bits, GPT2)
    return programs, jax.eval_shape(programs._initialize, np.uint32(0))


@pytest.mark.parametrize("name", SIZES)
def test_it_has_the_parameters_that_it_is_named_for(name: str) -> None:
    settings = experiment(name)
    _, (state, _) = programs_of(settings)
    params = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    assert params == pytest.approx(SIZES[name], rel=0.05)
    assert params == pytest.approx(settings.model.params(GPT2), rel=0.01)


@pytest.mark.parametrize("name", SIZES)
def test_it_sees_a_billion_tokens_in_steps_of_half_a_million(name: str) -> None:
    train = experiment(name).train
    assert (train.steps, train.batch, train.time, train.learning_rate) == (2000, 256, 2048, 3e-4)
    assert train.steps * train.batch * train.time == pytest.approx(1e9, rel=0.05)


@pytest.mark.parametrize("name", SIZES)
def test_without_tokens_it_says_what_it_needs(name: str) -> None:
    with pytest.raises(ConfigurationError, match="corpus=token_bin needs path=FILE_OR_FOLDER"):
        settings_of(composed([f"experiment={name}"]))


def test_a_node_of_eight_trains_the_large_one() -> None:
    settings = experiment("asi_arch_340m", "execution.gpus_per_trial=8", "train.accumulate=8")
    assert settings.execution.devices == 8 and settings.train.microbatch == 4 * 8
    assert experiment("asi_arch_340m", "execution=tpu").execution.devices is None


def test_the_first_steps_at_full_width(tmp_path: Path) -> None:
    settings = experiment("asi_arch", "train.batch=2", "train.accumulate=1", "train.time=32", "train.steps=2")
    data = {
        split: np.random.default_rng(0).integers(0, GPT2, 999).astype(np.uint16) for split in ("train", "validation")
    }
    sent: list[dict] = []
    one_rate = replace(settings.train, grid=(1.0,))
    lengths = np.full(GPT2, 4, np.uint16)
    result = train(REFERENCE, settings.model, one_rate, data, 2, [2], None, tmp_path, sent.append, lengths)
    assert result == {"trained": True}
    assert sent[-1]["rung"]["params"] == pytest.approx(20e6, rel=0.05)
    assert sent[-1]["rung"]["bits_per_byte"] == pytest.approx(np.log2(GPT2) / 4, rel=0.2), "as good as a guess"


def test_the_large_one_can_be_lowered() -> None:
    settings = experiment("asi_arch_340m")
    programs, (state, constants) = programs_of(settings)
    windows = jax.ShapeDtypeStruct((1, settings.train.batch, settings.train.time + 1), np.uint16)
    lowered = programs._steps.lower(state, constants, jax.ShapeDtypeStruct((), np.float32), windows)
    assert f"{settings.train.microbatch}x{settings.train.time}x{GPT2}xf32" in lowered.as_text(), "logits of a part"
    assert f"{settings.train.batch}x{settings.train.time}x{GPT2}xf32" not in lowered.as_text()


def test_a_large_checkpoint_may_be_written() -> None:
    ordinary = Limits(seconds=1)
    assert limits_of_training(ordinary, Settings().model.params(256), checkpoints=3) == ordinary
    large = limits_of_training(ordinary, experiment("asi_arch_340m").model.params(GPT2), checkpoints=3)
    assert large.file_bytes > 12 * 353e6 and large.disk_bytes > 2 * large.file_bytes
