"""The command line: what is wrong is one line and exit code 2, and what is right reaches the command."""

import json
import os
import subprocess
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import nas.commands.search as search_command
from nas import journal as journals
from nas.cli import HELP, main
from nas.commands.search import JOURNAL
from nas.errors import UserError
from nas.journal import Journal
from nas.settings import Settings

NAS = Path(sys.executable).with_name("nas")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra reads sys.argv, and all that a command writes is under the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nas"])


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, list[str]]]:
    """The searches that would have been run."""
    runs: list[tuple[Settings, list[str]]] = []

    def search(settings: Settings, overrides: Any) -> int:
        runs.append((settings, list(overrides)))
        return 0

    monkeypatch.setattr(search_command, "search", search)
    return runs


def run(words: str | list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command line."""
    try:
        code = main(words.split() if isinstance(words, str) else words)
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    shown = capfd.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("serach", "there is no command serach: there are search, submit, status, logs, stop, check, train, "),
        ("search seed=x", "seed=x: input should be a valid integer"),
        ("search sede=1", "there is no key sede: did you mean seed?"),
        ("search seed=1,2", "Ambiguous value for argument 'seed=1,2'"),
        ("search --bogus", "there is no option --bogus"),
        ("search train=null", "train=null: "),
        ("search corpus=text path=missing", "corpus path missing does not exist"),
        ("search proposer=folder proposer.path=missing", "proposer.path=missing: there is no such folder"),
        (
            "search search_space.module=no.such.space",
            "search_space.module=no.such.space can't be imported: No module named 'no'",
        ),
        ("search search_space.baselines=[nope]", "search_space.baselines: no nope; there are "),
        ("search resume=missing", "there is no search to read at "),
        ("search cluster=ray_job", "cluster=ray_job is where nas submit sends a search: nas search runs it here"),
        ("check", "usage: nas check FILE [--json] [overrides]"),
        ("check a.py b.py", "usage: nas check FILE [--json] [overrides]"),
        ("check a.py --jsn", "usage: nas check FILE [--json] [overrides]"),
        ("check missing.py", "missing.py can't be read: No such file or directory"),
        ("check missing.py model.width=x", "model.width=x: input should be a valid integer"),
        ("train", "usage: nas train NAME|FILE [overrides]"),
        ("train seed=1", "usage: nas train NAME|FILE [overrides]"),
        ("train gla --fast", "usage: nas train NAME|FILE [overrides]"),
        ("train nope", "there is no baseline and no file nope: the baselines are "),
        ("walk 100", "usage: nas walk [overrides]"),
        ("walk --fast", "usage: nas walk [overrides]"),
        ("walk walk.candidates=0", "walk.candidates=0 must be at least 1"),
        ("baselines --fast", "usage: nas baselines [overrides]"),
        ("baselines baselines.seeds=0", "baselines.seeds=0 must be at least 1"),
        ("baselines search_space.baselines=[nope]", "search_space.baselines: no nope; there are "),
        ("probe --fast", "usage: nas probe [NAME|FILE ...] [overrides]"),
        ("probe nope", "there is no baseline and no file nope: the baselines are "),
        ("probe probe=none", "probe=none leaves nothing to train on: say probe=tiny or probe=published"),
        ("probe probe.tasks=[nope]", "probe.tasks: no nope; there are in_context_recall, "),
        ("probe probe.learning_rates=[0.1,0]", "probe.learning_rates=[0.1, 0.0] must be positive"),
        ("ui --port", "usage: nas ui [overrides] [--port N]"),
        ("ui --port x", "usage: nas ui [overrides] [--port N]"),
        ("ui --prot 5001", "usage: nas ui [overrides] [--port N]"),
        ("ui sede=1", "there is no key sede: did you mean seed?"),
    ],
)
def test_what_is_wrong_is_one_line(words: str, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(words, capfd)
    assert code == 2 and out == ""
    assert err.startswith(f"nas: {sentence}") and err.count("\n") == 1
    assert list(Path().iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    "words", [[], ["-h"], ["--help"], ["help"], ["train", "--help"], ["check", "-h"], ["ui", "--help"]]
)
def test_help_is_help(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(words, capfd) == (0, HELP + "\n", "")


@pytest.mark.parametrize(
    "command", ["search", "submit", "check", "train", "walk", "baselines", "probe", "review", "doctor", "ui"]
)
def test_help_speaks_of_every_command(command: str) -> None:
    assert f"\n  nas {command} " in HELP


def test_a_search_has_the_help_that_hydra_makes(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("search --help", capfd)
    assert code == 0 and err == ""
    assert (
        "nas search proposer=folder proposer.path=DIR" in out
        and "meta: ducb, fixed, foresight, pursuit, swucb, thompson, uniform" in out
        and "elites: " in out
    )


def test_the_configuration_can_be_printed_as_the_help_says(capfd: pytest.CaptureFixture[str], searched: Any) -> None:
    code, out, err = run("search seed=3 --cfg job", capfd)
    assert (code, err, searched) == (0, "", []) and "\nseed: 3\n" in out


def test_a_search_gets_its_settings_and_its_overrides(searched: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("search seed=7 search.trials=3 meta=uniform", capfd) == (0, "", "")
    ((settings, overrides),) = searched
    assert (settings.seed, settings.search.trials, settings.meta.kind) == (7, 3, "uniform")
    assert overrides == ["seed=7", "search.trials=3", "meta=uniform"]
    assert list(Path().iterdir()) == [], "Hydra leaves nothing behind"


def test_a_sweep_is_one_search_after_the_other(searched: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("search -m seed=1,2 meta=uniform", capfd)
    assert (code, err) == (0, "")
    assert [(settings.seed, settings.meta.kind) for settings, _ in searched] == [(1, "uniform"), (2, "uniform")]


@pytest.mark.parametrize(
    ("ends", "code", "count"),
    [([0, 1], 1, 2), ([UserError("no"), 0], 2, 2), ([130, 0], 130, 1), ([KeyboardInterrupt()], 130, 1)],
    ids=["one could not go on", "one is wrong", "an interrupt", "two interrupts"],
)
def test_the_exit_code_of_a_sweep(
    ends: list[Any], code: int, count: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = iter(ends)
    ran = []

    def search(settings: Settings, overrides: Any) -> int:
        ran.append(settings.seed)
        end = next(runs)
        if isinstance(end, BaseException):
            raise end
        return int(end)

    monkeypatch.setattr(search_command, "search", search)
    assert run("search -m seed=1,2", capfd)[0] == code
    assert len(ran) == count, "an interrupt ends the sweep, nothing else does"


def test_a_broken_disk_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def search(settings: Settings, overrides: Any) -> int:
        log = Journal(Path("journal.jsonl"))
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, log._file.fileno())
        os.close(full)
        try:
            log.append({"event": "search"})
        finally:
            log.close()
        return 0

    monkeypatch.setattr(search_command, "search", search)
    code, _, err = run("search", capfd)
    assert code == 2 and err == "nas: the journal journal.jsonl can't be written: No space left on device\n"


# Going on


def recorded(name: str = "first", **config: Any) -> Path:
    """The folder of a search that was killed right after its start."""
    folder = Path("results") / name
    log = Journal(folder / JOURNAL)
    log.append({"event": "search", "config": asdict(Settings()) | config, "corpus": {"sha256": "0" * 64}})
    log.close()
    return folder


def test_another_corpus_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(f"search resume={recorded()}", capfd)
    assert code == 2
    assert err == "nas: the corpus is no longer that of first: results would not compare, so start a new search\n"
    assert not Path("results/first/.cache").exists() and Path("results/.cache").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("seed=1", "seed=1 can't be changed on resume, since earlier trials ran without it; only search.trials, "),
        ("train.steps=7", "train.steps=7 can't be changed on resume"),
    ],
)
def test_what_can_not_be_changed_is_one_line(override: str, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"search resume={recorded()} {override}", capfd)
    assert code == 2 and out == "" and err.startswith(f"nas: {sentence}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resume=file://{here}/searches/none", "there is no search in file://{here}/searches/none"),
        ("resume=file://{here}/none", "file://{here}/none is no search in a store: STORE/searches/NAME"),
        ("store={here}", "store={here} must be a URL: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or file:///FOLDER"),
        ("store=s3://key:secret@bucket", "store has a user, a password or a key in it, and would be written down: "),
        ("store=adl://lake/nas", "store=adl://lake/nas needs adlfs: pip install adlfs"),
    ],
)
def test_what_is_wrong_with_a_store_is_one_line(
    override: str, sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = run(f"search {override.format(here=tmp_path / 'shared')}", capfd)
    assert code == 2 and err.startswith(f"nas: {sentence.format(here=tmp_path / 'shared')}") and err.count("\n") == 1
    assert "Traceback" not in out and "secret" not in err and not list(Path("results").glob("*_seed*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no search in it: start a new one"),
        (b'{"event": "sea', "has no search in it: start a new one"),
        (b'{"event": "ask"}\n', "has no search in it: start a new one"),
        (b"<<<<\n", "is damaged at line 1: restore that line, or cut the file before it"),
    ],
)
def test_what_is_no_search_is_one_line(content: bytes, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    (recorded() / JOURNAL).write_bytes(content)
    code, _, err = run("search resume=results/first", capfd)
    assert code == 2 and err == f"nas: {Path('results/first', JOURNAL).absolute()} {sentence}\n"


def test_a_name_that_is_taken_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    recorded("first")
    before = (Path("results") / "first" / JOURNAL).read_bytes()
    code, _, err = run("search name=first", capfd)
    assert code == 2
    assert err == "nas: there is a search in results/first: go on with resume=results/first, or choose another name=\n"
    assert (Path("results") / "first" / JOURNAL).read_bytes() == before


def test_a_name_is_not_taken_by_a_search_that_could_not_begin(capfd: pytest.CaptureFixture[str]) -> None:
    for wrong in ("corpus=text path=missing", "proposer=folder proposer.path=missing", "search_space.baselines=[x]"):
        assert run(f"search name=first {wrong}", capfd)[0] == 2
    assert not Path("results/first").exists()


def test_a_search_that_runs_is_not_resumed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recorded()
    first = Journal(folder / JOURNAL)
    corpus = search_command.prepare(Settings().corpus, Path("cache"))
    record = journals.read(folder / JOURNAL)[0] | {"corpus": asdict(corpus)}
    (folder / JOURNAL).write_text(json.dumps(record) + "\n")
    monkeypatch.setattr(search_command, "prepare", lambda settings, cache: corpus)
    code, _, err = run("search resume=results/first tracking=none", capfd)
    first.close()
    assert code == 2 and err.startswith("nas: another process is running the search in ") and err.count("\n") == 1


# As a person runs it


@pytest.mark.parametrize("command", [[str(NAS)], [sys.executable, "-m", "nas"]], ids=["nas", "python -m nas"])
def test_the_installed_command(command: list[str]) -> None:
    wrong = subprocess.run([*command, "search", "sede=1"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "nas: there is no key sede: did you mean seed?\n"


def test_a_mistake_is_told_before_anything_heavy_is_imported() -> None:
    script = """
import sys
from nas.cli import main
assert main(["search", "corpus=text", "path=missing"]) == 2
print({"jax", "flax", "ray", "mlflow"} & set(sys.modules))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.stdout == "set()\n", shown.stderr


def test_a_user_error_is_the_only_error_that_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug keeps its traceback."""

    def broken(settings: Settings, overrides: Any) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(search_command, "search", broken)
    with pytest.raises((ZeroDivisionError, SystemExit)) as caught:
        main(["search"])
    shown = "".join(traceback.format_exception(caught.value))
    assert "a bug" in shown
