"""`nas notes`: what a person sees of the notes, and how one is added."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.commands import notes as command
from nas.errors import UserError
from nas.knowledge import load

HOSTILE = "[red]red[/red] [/] \x1b[2J\x1b]0;title\x07 decay"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a space with one note, and a person with a folder of their own."""
    shipped = tmp_path / "space"
    shipped.mkdir()
    (shipped / "shipped-note.md").write_text("Shipped note\nOn decay.")
    monkeypatch.setattr(command, "load_space", lambda module: SimpleNamespace(notes=shipped))
    return SimpleNamespace(notes_dir=str(tmp_path / "own"), search_space=SimpleNamespace(module="a.space"))


def own(settings: Any) -> Path:
    return Path(settings.notes_dir)


def test_a_text_is_added_and_found(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.notes(["add", "Slow heads\nLet some heads decay slowly."], settings) == 0
    assert "slow-heads.md: Slow heads" in capsys.readouterr().out
    assert command.notes(["search", "heads", "that", "decay"], settings) == 0
    shown = capsys.readouterr().out
    assert shown.index("slow-heads: Slow heads") < shown.index("shipped-note: Shipped note")
    assert "claim     Let some heads decay slowly." in shown


def test_words_without_quotes_are_one_text(settings: Any) -> None:
    command.notes(["add", "Slow", "heads", "help"], settings)
    assert load([own(settings)]).notes["slow-heads-help"].claim == "Slow heads help"


def test_a_file_is_added(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "idea.txt").write_text("An idea\nText.")
    command.notes(["add", str(tmp_path / "idea.txt")], settings)
    assert load([own(settings)]).notes["idea"].title == "An idea"


def test_all_are_listed(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command.notes(["add", "Mine\nText."], settings)
    command.notes(["list"], settings)
    shown = capsys.readouterr().out
    assert "shipped-note" in shown and "mine" in shown and "2 notes" in shown


def test_a_search_without_a_hit_says_so(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.notes(["search", "nowhere"], settings) == 0
    assert "no note" in capsys.readouterr().out


def test_a_space_may_have_no_notes(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load_space", lambda module: SimpleNamespace(notes=None))
    command.notes(["list"], settings)
    assert "0 notes" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["list"], ["search", "decay"]])
def test_a_note_steers_no_terminal(settings: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    own(settings).mkdir()
    (own(settings) / "hostile.md").write_text(f"{HOSTILE}\n{HOSTILE}")
    command.notes(words, settings)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "[red]red[/red] [/]" in shown


@pytest.mark.parametrize("words", [[], ["add"], ["search"], ["list", "more"], ["remove", "decay"]])
def test_other_words_get_the_usage(settings: Any, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"^usage: nas notes"):
        command.notes(words, settings)


def test_the_notes_of_the_linear_attention_space_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = SimpleNamespace(
        notes_dir=str(tmp_path), search_space=SimpleNamespace(module="search_spaces.linear_attention.space")
    )
    command.notes(["search", "short", "convolution"], real)
    assert "short-convolution" in capsys.readouterr().out
