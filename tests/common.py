"""What several tests look up: the search space, where the project is, and a trial without its gate."""

from pathlib import Path
from typing import Any

from nas.search import rung_steps
from nas.settings import Settings
from nas.space import load_space
from nas.tasks.corpus import Corpus
from nas.trial import TrialSpec, make_spec

SPACE = load_space("search_spaces.linear_attention.space")
ROOT = Path(__file__).resolve().parents[1]


def ungated_spec(source: str, settings: Settings, corpus: Corpus, folder: Path, **changes: Any) -> TrialSpec:
    """A trial with seed 0 that is trained at once, as a baseline is, and is not rescored unless `changes` say so."""
    arguments = {"gate": None, "rungs": rung_steps(settings), "floored": False, "contends_below": None, "seed": 0}
    return make_spec(source, settings, corpus, folder=folder, **{**arguments, **changes})
