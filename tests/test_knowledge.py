"""The cognition base: what a note is, what a search of notes finds, and the space's own notes."""

import random
import sqlite3
import string
from pathlib import Path
from threading import Thread

import pytest
from common import SPACE

from nas.errors import UserError
from nas.knowledge import MAX_BYTES, SECTIONS, Knowledge, Note, add, load, parse, query_words, slug
from nas.types import Operator

WHOLE = """# Decay by token
topics: decay, Recall

## Claim
Forgets what a token says.

## Evidence
Seen in two
lines.

## Helps
Long text.

## Hurts
Copying.

## Citation
A. Author 2024, A Title.
"""
FREE_WORDS = {"recall", "memory", "cost", "stability", "training", "evaluation", "state tracking", "length", "numerics"}
SHIPPED = load([SPACE.notes]) if SPACE.notes else Knowledge()


def note(name: str, text: str) -> Note:
    return Note(name, name, claim=text)


# What a note is.


def test_a_note_is_read_section_by_section() -> None:
    assert parse(WHOLE, "decay-by-token", "decay.md") == Note(
        id="decay-by-token",
        title="Decay by token",
        topics=("decay", "recall"),
        claim="Forgets what a token says.",
        evidence="Seen in two\nlines.",
        helps="Long text.",
        hurts="Copying.",
        citation="A. Author 2024, A Title.",
    )


@pytest.mark.parametrize("section", SECTIONS)
def test_a_note_without_a_section_says_which_and_where(section: str) -> None:
    damaged = WHOLE.replace(f"## {section.capitalize()}\n", "")
    with pytest.raises(UserError, match=rf"^notes/a\.md: the note has no section {section.capitalize()}$"):
        parse(damaged, "a", "notes/a.md")


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ("", "is empty"),
        (" \n\t\n", "is empty"),
        (WHOLE.replace("# Decay by token\n", "", 1), "no title"),
        (WHOLE.replace("topics: decay, Recall\n", ""), "no topics"),
        (WHOLE.replace("topics: decay, Recall", "topics: ,"), "no topics"),
        (WHOLE.replace("Long text.", ""), "no section Helps"),
        (WHOLE + "\n## Claim\nAgain.\n", "'claim' stands twice"),
        (WHOLE + "\n## Remarks\nMore.\n", "'remarks' is not a section"),
        (WHOLE.replace("## Claim", "A stray line.\n## Claim"), "'A stray line.' stands before"),
        ("# Title\ntopics: decay\nText without a section.", "no section Claim, no section Evidence"),
    ],
)
def test_a_damaged_note_is_refused_in_one_sentence(damaged: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        parse(damaged, "a", "notes/a.md")
    assert str(refusal.value).startswith("notes/a.md: ") and "\n" not in str(refusal.value)


def test_a_text_without_sections_is_a_note() -> None:
    assert parse("# Try it\n\nLine one.\n## Some heading\nLine two.", "a", "") == Note(
        "a", "Try it", claim="Line one.\n## Some heading\nLine two."
    )
    assert parse("One line alone", "a", "") == Note("a", "One line alone", claim="One line alone")
    paragraph = parse("word " * 60 + "\nmore", "a", "")
    assert len(paragraph.title) <= 100 and paragraph.claim == ("word " * 60).strip() + "\nmore"


def test_lines_may_end_as_they_do_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "windows.md").write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert load([tmp_path]).notes["windows"].topics == ("decay", "recall")


# Search.


def test_no_notes_are_knowledge_too(tmp_path: Path) -> None:
    empty = load([tmp_path / "missing"])
    assert len(empty) == 0 and empty.search("decay", 3) == []


def test_the_best_match_leads() -> None:
    titled = Note("b", "A decay per head", claim="One number.")
    passing = Note("a", "Something else", claim="Beside a decay " + "and many further words " * 20)
    unlike = Note("c", "Windows", claim="Attention nearby.")
    assert Knowledge([passing, titled, unlike]).search("decays", 3) == [titled, passing]
    assert Knowledge([passing, titled, unlike]).search("decays", 1) == [titled]


def test_topics_count_more_than_passing_words() -> None:
    about = Note("b", "One", topics=("write_rule",), claim="Text of some length here.")
    passing = Note("a", "Two", claim="Text of some length here with a rule to write.")
    assert Knowledge([passing, about]).search("write_rule", 2) == [about, passing]


def test_ties_go_to_the_first_id_whatever_the_order_of_loading() -> None:
    notes = [Note(name, "Same title", claim="the same decay") for name in "cabd"]
    for seed in range(5):
        shuffled = random.Random(seed).sample(notes, len(notes))
        assert [found.id for found in Knowledge(shuffled).search("decay", 3)] == ["a", "b", "c"]


def test_credit_lifts_a_note_among_those_that_match_and_brings_in_no_other() -> None:
    base = Knowledge([note("a", "decay of the state"), note("b", "decay of the state"), note("c", "windows")])
    assert [found.id for found in base.search("decay", 3)] == ["a", "b"]
    assert [found.id for found in base.search("decay", 3, {"b": 0.2, "c": 1.0, "gone": 1.0})] == ["b", "a"]


def test_credit_is_moderate() -> None:
    """It is worth half the score at the most: less than a word of the query in the title instead of in passing."""
    strong, weak = Note("a", "Decay", claim="Decay."), Note("b", "Other", claim="decay " + "and more words " * 30)
    base = Knowledge([strong, weak, *(note(f"n{number}", "windows") for number in range(5))])
    assert [found.id for found in base.search("decay", 2, {"b": 1.0})] == ["a", "b"]
    assert base.search("decay", 2, {"b": 50.0}) == base.search("decay", 2, {"b": 1.0})


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "a AND", "NOT decay", "decay OR", "NEAR(decay head)", "title:decay", "decay*", "^decay",
        "- decay", "(", "{title} : x", "decay\0head", "ﬁ ⅷ ², é́ 日本語 \ud800", "; DROP TABLE notes; --", "x" * 100_000,
        "_" * 50, "😀",
    ],
)  # fmt: skip
def test_any_text_is_a_query(query: str) -> None:
    SHIPPED.search(query, 3)
    found = Knowledge([note("a", "decay")]).search(query, 3)
    assert [match.id for match in found] == (["a"] if "decay" in query_words(query) else [])


def test_random_text_is_a_query() -> None:
    rng = random.Random(0)
    letters = string.printable + "\0éß日\u2028\"'*^:(){}"
    for _ in range(300):
        SHIPPED.search("".join(rng.choices(letters, k=rng.randint(0, 60))), 3)


def test_a_whole_program_is_a_query() -> None:
    source = SPACE.baselines()["gated_deltanet"].source
    assert len(query_words(source)) == 100 and SHIPPED.search(source, 4)


def test_words_that_say_nothing_match_nothing() -> None:
    assert Knowledge([note("a", "what is the state")]).search("What is the ... of it?", 3) == []


def test_the_index_is_usable_from_another_thread() -> None:
    found: list[Note] = []
    thread = Thread(target=lambda: found.extend(SHIPPED.search("decay", 2)))
    thread.start()
    thread.join()
    assert found == SHIPPED.search("decay", 2) != []


def test_a_sqlite_without_full_text_search_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(sqlite3.Connection):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            return super().execute(sql.replace("fts5", "no_such_module"), *rest)

    bare = sqlite3.connect(":memory:", factory=Bare)
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: bare)
    with pytest.raises(UserError, match=r"FTS5.*no such module"):
        Knowledge([note("a", "decay")])


# A person's own notes.


def test_a_text_is_added_under_its_title(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "notes"
    added = add("# Half the keys!\nKeys of half width.", folder)
    assert added == Note("half-the-keys", "Half the keys!", claim="Keys of half width.")
    assert load([folder]).notes == {"half-the-keys": added}


def test_a_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "My idea (2).txt").write_text(WHOLE)
    added = add(str(tmp_path / "My idea (2).txt"), tmp_path / "notes")
    assert added.id == "my-idea-2" and added.topics == ("decay", "recall")
    assert (tmp_path / "notes" / "my-idea-2.md").read_text() == WHOLE


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    add("Same title\nfirst", tmp_path)
    with pytest.raises(UserError, match="already"):
        add("Same title\nsecond", tmp_path)
    assert load([tmp_path]).notes["same-title"].claim == "first"


@pytest.mark.parametrize("text", ["", "  \n", "missing.md", "no/such/file", "# Title\ntopics: decay\n## Claim\nx"])
def test_what_is_no_note_is_not_added(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        add(text, tmp_path / "notes")
    assert not (tmp_path / "notes").exists()


def test_what_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.md"
    for content, reason in ((("é" * (MAX_BYTES // 2 + 1)).encode(), "20,000 at most"), (b"title\n\xff\xfe", "UTF-8")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            add(str(file), tmp_path / "notes")
        with pytest.raises(UserError, match=rf"file\.md.*{reason}"):
            load([tmp_path])
    with pytest.raises(UserError, match="20,000 at most"):
        add("é" * (MAX_BYTES // 2 + 1), tmp_path / "notes")
    add("é" * (MAX_BYTES // 2 - 1), tmp_path / "notes")
    assert len(load([tmp_path / "notes"])) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/notes"):
        add("A title\ntext", tmp_path / "file" / "notes")


def test_a_person_corrects_a_note_of_the_space(tmp_path: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    add("Decay\nold", shipped)
    add("Decay\nnew", own)
    assert load([shipped, own]).notes["decay"].claim == "new"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Gated Delta-Rule", "gated-delta-rule"),
        ("../../etc/passwd", "etc-passwd"),
        ("Überlauf: 日本", "überlauf-日本"),
        ("a" * 500, "a" * 60),
    ],
)
def test_a_slug_is_a_safe_file_name(title: str, name: str) -> None:
    assert slug(title) == name


def test_a_title_without_letters_has_a_name() -> None:
    assert slug("!!!").startswith("note-") and slug("!!!") != slug("???")


# The space's own notes.


def test_there_are_many_notes_with_titles_of_their_own() -> None:
    assert len(SHIPPED) >= 60
    assert len({shipped.title.lower() for shipped in SHIPPED.notes.values()}) == len(SHIPPED)


@pytest.mark.parametrize("shipped", SHIPPED.notes.values(), ids=SHIPPED.notes)
def test_a_note_of_the_space_is_short_sourced_and_in_its_terms(shipped: Note) -> None:
    words = " ".join(getattr(shipped, section) for section in SECTIONS).split()
    assert 90 <= len(words) <= 220
    assert set(shipped.topics) <= FREE_WORDS | {operator.name for operator in SPACE.operators}
    assert any(year in shipped.citation for year in map(str, range(1990, 2030))) or "arXiv:" in shipped.citation
    assert slug(shipped.id) == shipped.id


@pytest.mark.parametrize("operator", SPACE.operators, ids=lambda operator: operator.name)
def test_every_operator_finds_notes_on_itself(operator: Operator) -> None:
    """Its description alone finds at least three among eight; with its name, most of four."""
    assert sum(operator.name in found.topics for found in SHIPPED.search(operator.describe, 8)) >= 3
    asked = SHIPPED.search(f"{operator.name} {operator.describe}", 4)
    assert sum(operator.name in found.topics for found in asked) >= 2
