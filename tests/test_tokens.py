"""A training on tokens, through the box: its bits per byte are those of the logits, by hand, and rescoring agrees."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from common import SPACE, ungated_spec
from flax import nnx
from test_trial import SETTINGS

from nas.loading import load_mixer
from nas.model import LanguageModel
from nas.sandbox import Box
from nas.settings import CorpusSettings
from nas.tasks.corpus import SPLITS, Corpus, prepare
from nas.tasks.reader import read_tokens
from nas.train import Programs, language_loss, restore, scored_bits
from nas.trial import ANY, run_trial

SOURCE = SPACE.baselines()["linear_attention"].source
LONGER = replace(SETTINGS, train=replace(SETTINGS.train, timeout_seconds=600))


@pytest.fixture(scope="module")
def library(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tokenizers.Tokenizer, Path]:
    """A byte-level BPE with a token that ends a document, and where it is."""
    cache = tmp_path_factory.mktemp("tokenizer")
    prepare(CorpusSettings("text", str(text_folder), tokenizer="bpe", vocabulary=300), cache)
    (kept,) = cache.glob("bpe-*.json")
    library = tokenizers.Tokenizer.from_file(str(kept))
    library.add_special_tokens(["<|end|>"])
    library.save(str(cache / "tokenizer.json"))
    return library, cache / "tokenizer.json"


@pytest.fixture(scope="module")
def tokens(
    text_folder: Path, library: tuple[tokenizers.Tokenizer, Path], tmp_path_factory: pytest.TempPathFactory
) -> Corpus:
    """The text as llm.c has it, in lines that each end with that token."""
    folder = tmp_path_factory.mktemp("tokens")
    encoder, path = library
    lines = [line for file in sorted(text_folder.iterdir()) for line in file.read_text().splitlines()]
    ids = np.concatenate([[*encoded.ids, 300] for encoded in encoder.encode_batch(lines)]).astype("<u2")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(ids)
    (folder / "tokens.bin").write_bytes(header.tobytes() + ids.tobytes())
    return prepare(CorpusSettings("token_bin", str(folder), tokenizer=str(path)), folder / "cache")


def test_bits_per_byte_of_tokens_are_those_of_the_logits(
    tokens: Corpus, library: tuple[tokenizers.Tokenizer, Path], box: Box, tmp_path: Path
) -> None:
    spec = ungated_spec(SOURCE, LONGER, tokens, tmp_path, contends_below=ANY)
    *rungs, last = run_trial(spec, box)
    outcome = json.loads(json.dumps(last))["outcome"]
    assert outcome["kind"] == "fitness", outcome
    assert rungs[-1]["rung"]["bits_per_byte"] < rungs[0]["rung"]["bits_per_byte"]

    by_hand = {split: bits_by_hand(tokens, library[0], split, tmp_path) for split in ("validation", "reserve")}
    assert rungs[-1]["rung"]["bits_per_byte"] == pytest.approx(by_hand["validation"], abs=1e-4)
    assert outcome["bits_per_byte"] == pytest.approx(by_hand["validation"], abs=1e-4), "rescored by another process"
    assert outcome["held_out_bits_per_byte"] == pytest.approx(by_hand["reserve"], abs=1e-4)


def bits_by_hand(corpus: Corpus, library: tokenizers.Tokenizer, split: str, folder: Path) -> float:
    """The definition, token by token in float64, of the model that the checkpoint has."""
    mixer = load_mixer(SOURCE)
    programs = Programs(mixer, LONGER.model, LONGER.train, language_loss, scored_bits, corpus.vocabulary)
    state, _ = programs.initialize(0)
    step, state, *_ = restore(folder / "train" / "checkpoints", state)
    assert step == LONGER.train.steps
    model = LanguageModel(mixer, LONGER.model, corpus.vocabulary, rngs=nnx.Rngs(0))
    nnx.update(model, state["params"])
    logits_of = nnx.jit(lambda model, tokens: model(tokens))
    data, time = read_tokens(corpus.file(split), corpus.dtype), LONGER.train.time
    bits = size = 0.0
    for start in np.linspace(0, len(data) - (time + 1), LONGER.task.validation_windows).astype(int):
        window = np.asarray(data[start : start + time + 1], np.int32)
        logits = np.asarray(logits_of(model, jnp.asarray(window[None, :-1]))[0], np.float64)
        for position, token in enumerate(window[1:].tolist()):
            text = library.decode([token], skip_special_tokens=True)  # the text is ASCII: each token is text by itself
            if text:
                bits -= (logits[position, token] - np.log(np.exp(logits[position]).sum())) / np.log(2)
                size += len(text)
    return bits / size


def test_the_special_token_is_in_what_is_scored(tokens: Corpus) -> None:
    lengths = read_tokens(tokens.token_bytes, "uint16")
    assert lengths[300] == 0 and lengths[:300].all() and tokens.vocabulary == 301
    for split in SPLITS:
        assert (read_tokens(tokens.file(split), tokens.dtype) == 300).sum() > 100
