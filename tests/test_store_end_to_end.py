"""A search whose machine is lost, journal, checkpoints, corpus and all: another machine goes on with it."""

import json
import shutil
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from common import ROOT
from test_end_to_end import NAS, TINY, events, nas, trials

from nas.sharing.journal import DRIVER, read
from nas.store import Store

pytestmark = pytest.mark.faults


def trials_in(store: Store) -> dict[str, dict]:
    found = map(json.loads, read(store)[0].splitlines())
    return {event["id"]: event for event in found if event["event"] == "trial"}


def test_another_machine_goes_on(
    s3: dict[str, str],
    tmp_path: Path,
    environment: dict[str, str],
    text_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    surroundings = {**environment, **s3}
    root = f"s3://shared/{uuid.uuid4().hex}"
    store = Store(f"{root}/searches/lost")
    shutil.copytree(text_folder, tmp_path / "one" / "text")
    arguments = [
        *TINY,
        "search.trials=2",
        "search.confirm_seeds=0",
        "seed=1",
        "name=lost",
        "tracking=none",
        f"store={root}",
    ]
    arguments += ["corpus=text", f"path={tmp_path}/one/text", f"results_dir={tmp_path}/one/results"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [*NAS, "search", *arguments], stdout=output, stderr=output, env=surroundings, cwd=ROOT
        )
    deadline = time.monotonic() + 240
    while len(trials_in(store)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline, (tmp_path / "output").read_text()
        time.sleep(0.2)
    assert process.poll() is None, (tmp_path / "output").read_text()
    machine = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in machine:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    time.sleep(2)  # what was on its way
    before = trials_in(store)
    assert len(before) >= 2 and store.has(DRIVER), (tmp_path / "output").read_text()
    shutil.rmtree(tmp_path / "one")

    run = nas("search", f"resume={store.url}", f"results_dir={tmp_path}/two", environment=surroundings)
    assert run.returncode == 0, run.stdout + run.stderr
    folder = tmp_path / "two" / "lost"
    assert "does the search's last driver still run?" in run.stdout and f"going on with {folder}" in run.stdout
    ended = [event["id"] for event in events(folder) if event["event"] == "trial"]
    assert len(ended) == len(set(ended)), "a trial was counted twice"
    assert all(trials(folder)[trial] == event for trial, event in before.items()), "a finished trial was lost"
    assert sum(event["purpose"] == "search" for event in trials(folder).values()) == 2
    assert all(event["outcome"]["kind"] != "crashed" for event in trials(folder).values())
    assert read(store)[0] == (folder / "journal.jsonl").read_bytes()
    assert not store.has(DRIVER)
    assert store.get("files/best.py") == (folder / "best.py").read_bytes()
    assert store.names("trials") and (folder.parent / ".cache").is_dir()
