"""A disk that fills: one sentence that names it, and what was finished stays whole."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from common import ROOT, SPACE, ungated_spec
from test_trial import SETTINGS

from nas.sandbox import Box
from nas.settings import CorpusSettings
from nas.tasks.corpus import Corpus, CorpusError, prepare
from nas.train import complete_checkpoints
from nas.trial import run_trial

SOURCE = SPACE.baselines()["linear_attention"].source
Disk = Callable[[int], AbstractContextManager[Path]]


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return lambda size: mounted(tmp_path / "disk", size)


def grow(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def trial(corpus: Corpus, folder: Path, box: Box) -> list[dict[str, Any]]:
    spec = ungated_spec(SOURCE, SETTINGS, corpus, folder)
    return list(run_trial(spec, box))


def test_while_a_checkpoint_is_written(corpus: Corpus, disk: Disk, box: Box) -> None:
    """There is room for one checkpoint and not for the next."""
    with disk(260 * 1024) as folder:
        checkpoints = folder / "t0" / "train" / "checkpoints"
        *rungs, last = trial(corpus, folder / "t0", box)
        reason = "the checkpoint of step 12 can't be written: No space left on device"
        assert last["outcome"] == {"kind": "crashed", "cause": "disk", "reason": reason}
        assert [message["rung"]["step"] for message in rungs] == [3], "what was measured before is told"
        assert complete_checkpoints(checkpoints) == ["00000003"]
        left = {path.name for path in checkpoints.iterdir()}
        assert left == {"00000003", "00000003.json"}, "nothing half-written takes up room"
        grow(folder, 4 * 2**20)
        *rungs, last = trial(corpus, folder / "t0", box)
        assert last["outcome"]["kind"] == "fitness" and [message["rung"]["step"] for message in rungs] == [3, 12]


@pytest.mark.parametrize("size", [100_000, 600_000, 660_000])
def test_while_the_corpus_is_stored(text_folder: Path, disk: Disk, size: int) -> None:
    settings = CorpusSettings("text", str(text_folder))
    with disk(size) as folder:
        (folder / "finished").write_text("journal")
        with pytest.raises(CorpusError, match=r"^the corpus can't be stored in .*: No space left on device$"):
            prepare(settings, folder / "cache")
        assert (folder / "finished").read_text() == "journal"
        left = [path for path in (folder / "cache").rglob("*") if path.is_file()]
        assert not left, "nothing half-written takes up room"
        grow(folder, 4 * 2**20)
        assert prepare(settings, folder / "cache").sizes["train"] > 100_000


def test_while_a_tokenizer_is_stored(text_folder: Path, disk: Disk) -> None:
    with disk(4_096) as folder:
        with pytest.raises(CorpusError, match=r"^the tokenizer can't be stored in .*: No space left on device$"):
            prepare(CorpusSettings("text", str(text_folder), tokenizer="bpe", vocabulary=500), folder / "cache")
        assert not list((folder / "cache").iterdir())


PREPARE = """
import resource, sys
from pathlib import Path
from nas.settings import CorpusSettings
from nas.tasks.corpus import prepare

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
prepare(CorpusSettings("text", sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_file_that_may_not_grow(text_folder: Path, tmp_path: Path) -> None:
    """The same without a file system of its own: for whoever may not mount one."""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PREPARE, str(text_folder), str(cache)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith(f"CorpusError: the corpus can't be stored in {cache}: File too large")
    assert not [path for path in cache.rglob("*") if path.is_file()]
