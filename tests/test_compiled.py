"""Compiled programs are kept for the same candidate alone, and change nothing that is measured."""

import os

import pytest
from common import ungated_spec

from nas import compiled
from nas.settings import BudgetSettings, ModelSettings, Settings, TaskSettings, TrainSettings
from nas.trial import run_trial

SETTINGS = Settings(
    model=ModelSettings(width=32, heads=2, layers=2),
    train=TrainSettings(steps=12, batch=4, time=32, grid=(1.0,), steps_per_dispatch=3, timeout_seconds=120),
    task=TaskSettings(validation_windows=4),
    budget=BudgetSettings(memory_gib=1),
)

MIXER = """
from flax import nnx


class TokenMixer(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.mix = nnx.Linear(width, width, use_bias={bias}, rngs=rngs)

    def __call__(self, x):
        return self.mix(x)
"""


def train(source, box, corpus, folder, kept):
    spec = ungated_spec(source, SETTINGS, corpus, folder, compiled=kept)
    *_, rung, last = run_trial(spec, box)
    assert last["outcome"]["kind"] == "fitness"
    assert not (folder / "train" / "compiled").exists()
    return rung["rung"]["bits_per_byte"]


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_a_second_training_compiles_nothing_and_measures_the_same(box, corpus, tmp_path):
    source, kept = MIXER.format(bias=False), tmp_path / "kept"
    first = train(source, box, corpus, tmp_path / "first", kept)
    (own,) = kept.iterdir()
    before = names(own)
    assert train(source, box, corpus, tmp_path / "second", kept) == first
    assert names(own) == before, "the second training had programs of its own"
    assert any(name.startswith("jit_steps") for name in before)


def test_each_candidate_has_a_folder_of_its_own(box, corpus, tmp_path):
    for bias in (False, True):
        train(MIXER.format(bias=bias), box, corpus, tmp_path / str(bias), tmp_path / "kept")
    assert len(names(tmp_path / "kept")) == 2


def test_damaged_programs_are_compiled_again(box, corpus, tmp_path):
    source, kept = MIXER.format(bias=False), tmp_path / "kept"
    first = train(source, box, corpus, tmp_path / "first", kept)
    (own,) = kept.iterdir()
    for file in own.iterdir():
        file.write_bytes(b"not a program")
    assert train(source, box, corpus, tmp_path / "second", kept) == first


@pytest.mark.parametrize("planted", ["link", "link to a folder", "pipe", "folder", "large"])
def test_only_plain_files_of_a_candidates_folder_are_kept(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST_BYTES", 1000)
    scratch, secret = tmp_path / "scratch", tmp_path / "secret"
    ours = scratch / "compiled"
    ours.mkdir(parents=True)
    secret.write_text("a key")
    (ours / "a-program").write_text("a program")
    if planted == "link":
        (ours / "b").symlink_to(secret)
    elif planted == "link to a folder":
        (ours / "b").symlink_to(tmp_path)
    elif planted == "pipe":
        os.mkfifo(ours / "b")
    elif planted == "folder":
        (ours / "b").mkdir()
    else:
        (ours / "b").write_bytes(bytes(2000))
    compiled.keep(scratch, tmp_path / "kept")
    assert names(tmp_path / "kept") == {"a-program"}
    assert secret.read_text() == "a key"


def test_a_folder_that_is_a_link_is_neither_kept_nor_written_through(tmp_path):
    scratch, elsewhere = tmp_path / "scratch", tmp_path / "elsewhere"
    scratch.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a-secret").write_text("a key")
    (scratch / "compiled").symlink_to(elsewhere)
    compiled.keep(scratch, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    kept = tmp_path / "other"
    kept.mkdir()
    (kept / "a-program").write_text("a program")
    compiled.fetch(kept, scratch)
    assert names(elsewhere) == {"a-secret"}
