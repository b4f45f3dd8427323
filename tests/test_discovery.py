"""What a discovery's commands say: a search once more, by words that a shell and Hydra take."""

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nas.commands.discovery import _commands, _fenced, overrides
from nas.commands.folder import Folder
from nas.commands.report import account
from nas.configuration import composed, settings_of
from nas.journal import Event
from nas.markdown import as_prose

ODD = [
    [],
    ["fitness=weighted", "+fitness.probes.mqar=0.05", "search.trials=60", "budget.flops_per_token=1"],
    ["meta=fixed", "+meta.weights.decay=2.5", "search_space.baselines=[gla,mamba2]", "train.grid=[1,2]"],
    [
        "corpus=text",
        "corpus.path='my notes, and more/it\\'s'",
        "cluster=ray_job",
        "cluster.address='http://127.0.0.1:8265'",
    ],
    ["proposer=llm", "llm.models=[a/b:1]", "llm.prices=[{model: 'a/b:1', input: 0.25, output: 2.0}]"],
]


def searched(path: Path, words: list[str], *more: Event) -> Folder:
    config = asdict(settings_of(composed(words)))
    begun = {"event": "search", "config": config, "corpus": {"name": "stdlib", "sha256": "ab" * 32}, "time": 1.0}
    path.mkdir()
    (path / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (begun, *more)))
    return Folder(path)


@pytest.mark.parametrize("words", ODD, ids=range(len(ODD)))
def test_a_search_is_told_by_what_is_not_as_usual(words: list[str], tmp_path: Path) -> None:
    told = shlex.split(shlex.join(overrides(searched(tmp_path / "first", words))))
    assert told[0] == "name=first"
    once_more = settings_of(composed(told))
    assert replace(once_more, name=None) == settings_of(composed(words))


def test_what_a_resume_has_changed_is_told_too(tmp_path: Path) -> None:
    resumed = {"event": "resume", "overrides": ["resume=results/first", "search.trials=100"], "time": 2.0}
    folder = searched(tmp_path / "first", ["search.trials=60"], resumed)
    found = replace(account(folder, tmp_path), verification={"command": "nas verify results/first"})
    lines = list(_commands([(folder, found)]))
    assert lines[:3] == [
        "    nas search name=first search.trials=60",
        f"    nas search resume={tmp_path}/first search.trials=100",
        "    nas verify results/first",
    ]


def test_text_of_others_makes_no_markup() -> None:
    assert as_prose("+0.05 [+0.02, +0.08] (n=4), write_rule") == "+0.05 [+0.02, +0.08] (n=4), write_rule"
    hostile = as_prose("<b> ![x](y) [a](javascript:b) [a]: http://x `c` www.x.org @who *em* a|b")
    assert not set("<>`*|@") & set(hostile) and "](" not in hostile and "![" not in hostile and "://" not in hostile
    assert _fenced("a\n````\nb", "diff")[0] == "`````diff"
