"""A score that matters is not the candidate's word: what lies about itself past the gate is held for a person."""

import json

import pytest
from common import SPACE, ungated_spec
from test_trial import SETTINGS

from nas.model import count_params, expected_params
from nas.settings import ModelSettings
from nas.trial import ANY, run_trial

HONEST = SPACE.baselines()["linear_attention"].source
CLASS = """
import jax.numpy as jnp
from flax import nnx

class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        {body}
"""
LEAKS = CLASS.format(body="return self.mix(jnp.roll(x, -1, axis=1))")
COUPLES = CLASS.format(body="return self.mix(x + jnp.mean(x, axis=0, keepdims=True))")
# What a candidate can do that got out of its code and into the process around it.
FORGES = """
import sys

import numpy as np

training = sys.modules["nas.train"]
training.evaluate_windows = lambda evaluate, params, windows, batch: 0.5 + np.arange(len(windows)) / 1e3
"""
FORGES_BOTH = """
import sys

sys.modules["jax"].export.export = None
"""
ANOTHER_MODEL = """
import sys

if "nas.rescore" in sys.modules:
    sys.modules["nas.rescore"]._name = lambda path: "nobody"
"""


def outcome_of(source, box, corpus, folder, contends_below=ANY):
    spec = ungated_spec(source, SETTINGS, corpus, folder, contends_below=contends_below)
    *_, last = run_trial(spec, box)
    return json.loads(json.dumps(last, allow_nan=False))["outcome"]


@pytest.mark.parametrize("name", ["linear_attention", "rwkv7"])
def test_an_honest_one_is_measured_on_text_it_never_saw(name, box, corpus, tmp_path):
    outcome = outcome_of(SPACE.baselines()[name].source, box, corpus, tmp_path)
    assert outcome["kind"] == "fitness"
    assert abs(outcome["held_out_bits_per_byte"] - outcome["bits_per_byte"]) < 1  # the same kind of text
    assert outcome["held_out_bits_per_byte"] != outcome["bits_per_byte"] and outcome["held_out_stderr"] > 0


def test_what_does_not_contend_is_not_rescored(box, corpus, tmp_path):
    outcome = outcome_of(HONEST, box, corpus, tmp_path, contends_below=0.1)
    assert outcome["kind"] == "fitness" and outcome["held_out_bits_per_byte"] is None


@pytest.mark.parametrize(
    ("source", "tripwire", "words"),
    [
        (LEAKS, "certificate", "when tokens from"),
        (COUPLES, "certificate", "when the other batch elements changed"),
        (FORGES + HONEST, "rescore", "its checkpoint has"),
        (FORGES_BOTH + HONEST, "rescore", "could not be rescored"),
        (ANOTHER_MODEL + HONEST, "rescore", "could not be rescored"),
    ],
    ids=["leaks", "couples the batch", "forges its loss", "forges and refuses", "gives another program"],
)
def test_a_lie_is_held(source, tripwire, words, box, corpus, tmp_path):
    outcome = outcome_of(source, box, corpus, tmp_path)
    assert outcome["kind"] == "held", outcome
    assert outcome["tripwire"] == tripwire
    assert words in outcome["reason"] and "\n" not in outcome["reason"]
    assert outcome["fitness"]["step"] == 12


def test_a_checkpoint_of_another_size_is_no_longer_what_was_certified():
    from flax import nnx

    from nas.loading import load_mixer
    from nas.model import LanguageModel

    for settings in (ModelSettings(16, 2, 1), ModelSettings(48, 3, 3)):
        for name in ("linear_attention", "gated_deltanet", "rwkv7"):
            mixer = load_mixer(SPACE.baselines()[name].source)
            model = nnx.eval_shape(
                lambda mixer=mixer, settings=settings: LanguageModel(mixer, settings, rngs=nnx.Rngs(0))
            )
            least, most = expected_params(settings)
            assert least <= count_params(model) <= most
            assert most - least <= 4 * settings.width * settings.layers
