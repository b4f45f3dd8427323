"""The cognition base: short notes on what is known in the field, found by full-text search.

A note is a Markdown file that a person likes to read and to write:

    # Title in one line
    topics: decay, stability

    ## Claim
    ## Evidence
    ## Helps
    ## Hurts
    ## Citation

Each section has text. A text without these sections is a note too: its first line is the title, the rest the claim.
The idea of a cognition base that a researcher's prompt is fed from is ASI-Arch's (Liu et al. 2025,
https://arxiv.org/abs/2507.18074); the index is SQLite's FTS5, in memory: no service, no embedding model.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nas.errors import UserError

MAX_BYTES = 20_000  # of one note
SECTIONS = ("claim", "evidence", "helps", "hurts", "citation")
_HEADING = re.compile(r"^##[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_TOPICS = re.compile(r"^topics:(.*)$", re.IGNORECASE)
_TITLE_LETTERS = 100  # of a free text's first line; a longer one is a paragraph
_SLUG_LETTERS = 60

# A word in the title or among the topics says more about a note than the same word in passing.
_WEIGHTS = {"title": 4, "topics": 4, "claim": 2, "evidence": 1, "helps": 1.5, "hurts": 1.5, "citation": 1}
_LIFT = 0.5  # a note that has always paid off ranks like one that matches half again as well
_QUERY_WORDS = 100
# Words that say nothing here: whoever asks for a mutation asks for a change.
_COMMON = (
    "a about all an and are as at be been but by can change changed changes do does for from had has have how if "
    "in into is it its may more no not of on or other others so some such than that the their them then there "
    "they this to under was what when where whether which while who whose will with"
)
_COMMON_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Note:
    """What is known of one mechanism.

    Attributes:
      id: the stem of its file's name.
      title: one line.
      topics: names of mutation operators, or free words such as "recall"; in lower case.
      claim: what it does, in the note's own words.
      evidence: what was seen, by whom, at which size.
      helps: when to reach for it.
      hurts: when not to.
      citation: where it was published.
    """

    id: str
    title: str
    topics: tuple[str, ...] = ()
    claim: str = ""
    evidence: str = ""
    helps: str = ""
    hurts: str = ""
    citation: str = ""


class Knowledge:
    """Notes, and the index to search them. May be used from any thread, by one at a time."""

    def __init__(self, notes: Iterable[Note] = ()):
        """Indexes `notes`, of which the last with an id counts.

        Raises:
          UserError: if this Python's SQLite has no full-text search.
        """
        found = {note.id: note for note in notes}
        self.notes: Mapping[str, Note] = MappingProxyType({name: found[name] for name in sorted(found)})
        self._index = _index(self.notes.values())

    def __len__(self) -> int:
        return len(self.notes)

    def search(self, query: str, count: int, credit: Mapping[str, float] = MappingProxyType({})) -> list[Note]:
        """The notes that match best; the same arguments give the same answer.

        A note matches if any word of the query is in it, word endings aside. Its score is
        `bm25(query, note) * (1 + credit[id] / 2)`, with BM25 weighted by column; of equal notes the first id leads.

        Args:
          query: free text from anywhere; its first hundred distinct words count.
          count: how many notes at most.
          credit: note id -> mean reward in [0, 1] of the proposals that were shown it; 0 where it is unknown.
        """
        words = query_words(query)
        if not words or count < 1:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        weights = ", ".join(str(weight) for weight in _WEIGHTS.values())
        rows = self._index.execute(f"SELECT id, -bm25(notes, 0, {weights}) FROM notes WHERE notes MATCH ?", (match,))
        scores = {name: bm25 * (1 + _LIFT * min(max(credit.get(name, 0.0), 0.0), 1.0)) for name, bm25 in rows}
        best = sorted(scores, key=lambda name: (-scores[name], name))[:count]
        return [self.notes[name] for name in best]


def query_words(query: str) -> list[str]:
    """The words of a query that say something: letters and digits alone, so that none is an operator of the index."""
    words = re.findall(r"[^\W_]+", query.lower())
    return [word for word in dict.fromkeys(words) if word not in _COMMON_WORDS][:_QUERY_WORDS]


def load(folders: Sequence[Path]) -> Knowledge:
    """All notes, `*.md`, of `folders`; one that does not exist has none.

    A note in a later folder takes the place of one of the same name in an earlier: so a person corrects a note.

    Raises:
      UserError: naming the file, if a note is damaged.
    """
    files = [file for folder in folders for file in sorted(folder.glob("*.md")) if file.is_file()]
    return Knowledge(parse(_read(file), file.stem, str(file)) for file in files)


def add(text_or_file: str, folder: Path) -> Note:
    """Puts a note into `folder`: a copy of a file, or a text, named after its title.

    Raises:
      UserError: with one sentence, if it is no note, or there is one of that name already.
    """
    source = _file_named(text_or_file)
    text = (text_or_file if source is None else _read(source)).strip() + "\n"
    content, shown = text.encode("utf-8", errors="replace"), "the text" if source is None else str(source)
    _check_size(len(content), shown)
    title = parse(text, "", shown).title
    name = slug(title if source is None else source.stem)
    path = folder / f"{name}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise UserError(f"there is a note {path} already: edit it, or give yours another name") from error
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    return parse(content.decode(), name, str(path))


def parse(text: str, name: str, file: str) -> Note:
    """The note in a Markdown text.

    Args:
      name: its id.
      file: what to call it in an error.

    Raises:
      UserError: if it is empty, or has some of the sections but not all.
    """
    lines = text.strip().splitlines()
    if not lines:
        raise UserError(f"{file}: the note is empty")
    second = next((line for line in lines[1:] if line.strip()), "")
    headings = {heading.lower() for heading in _HEADING.findall(text)}
    if headings.intersection(SECTIONS) or _TOPICS.match(second):
        return _parse_sections(text.strip(), name, file)
    return _parse_free(lines, name)


def slug(title: str) -> str:
    """A file's name for a title, such as "gated-delta-rule"."""
    words = "-".join(re.findall(r"[^\W_]+", title.lower()))[:_SLUG_LETTERS].strip("-")
    return words or f"note-{hashlib.sha256(title.encode('utf-8', errors='replace')).hexdigest()[:8]}"


def _parse_sections(text: str, name: str, file: str) -> Note:
    head, *rest = _HEADING.split(text)
    title, *others = [line.strip() for line in head.splitlines() if line.strip()] or [""]
    headings = [heading.lower() for heading in rest[::2]]
    sections = dict(zip(headings, (body.strip() for body in rest[1::2]), strict=True))
    found = _TOPICS.match(others[0]) if others else None
    topics = tuple(topic for part in (found[1] if found else "").split(",") if (topic := part.strip().lower()))

    missing = [] if title.startswith("# ") else ["title (# ...)"]
    missing += [] if topics else ["topics (topics: ...)"]
    missing += [f"section {section.capitalize()}" for section in SECTIONS if not sections.get(section)]
    if missing:
        raise UserError(f"{file}: the note has no {', no '.join(missing)}")
    if len(others) > 1:
        raise UserError(f"{file}: {_cut(others[1])!r} stands before the first section")
    for heading in headings:
        if heading not in SECTIONS or headings.count(heading) > 1:
            reason = "stands twice" if heading in SECTIONS else "is not a section of a note"
            raise UserError(f"{file}: {_cut(heading)!r} {reason}")
    return Note(name, title.removeprefix("# ").strip(), topics, *(sections[section] for section in SECTIONS))


def _parse_free(lines: Sequence[str], name: str) -> Note:
    first = lines[0].lstrip("#").strip() or lines[0]
    rest = "\n".join(lines[1:]).strip()
    if len(first) > _TITLE_LETTERS or not rest:
        return Note(name, _cut(first), claim="\n".join([first, *lines[1:]]).strip())
    return Note(name, first, claim=rest)


def _cut(line: str) -> str:
    return line if len(line) <= _TITLE_LETTERS else line[: _TITLE_LETTERS - 3].rstrip() + "..."


def _index(notes: Iterable[Note]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    columns = ", ".join(_WEIGHTS)
    try:
        # Porter's stemmer: "forgets" is found by "forgetting".
        connection.execute(
            f"CREATE VIRTUAL TABLE notes USING fts5(id UNINDEXED, {columns}, tokenize='porter unicode61')"
        )
    except sqlite3.OperationalError as error:
        connection.close()
        raise UserError(
            f"notes need SQLite's full-text search FTS5, which this Python's SQLite lacks: {error}"
        ) from error
    rows = [(note.id, *(_column(note, column) for column in _WEIGHTS)) for note in notes]
    connection.executemany(f"INSERT INTO notes VALUES ({', '.join('?' * (len(_WEIGHTS) + 1))})", rows)
    return connection


def _column(note: Note, column: str) -> str:
    value = getattr(note, column)
    return value if isinstance(value, str) else " ".join(value)


def _file_named(text_or_file: str) -> Path | None:
    """The file that is meant; None if it is a text.

    Raises:
      UserError: if it looks like a file's name and there is none.
    """
    path = Path(text_or_file)
    try:
        if path.is_file():
            return path
    except OSError:  # a text is too long for a file's name
        return None
    one_word = len(text_or_file.split()) == 1
    if one_word and (path.suffix in (".md", ".txt") or "/" in text_or_file):
        raise UserError(f"there is no file {text_or_file}")
    return None


def _read(file: Path) -> str:
    try:
        _check_size(file.stat().st_size, str(file))
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a text in UTF-8") from error


def _check_size(count: int, shown: str) -> None:
    if count > MAX_BYTES:
        raise UserError(f"{shown} has {count:,} bytes: a note has {MAX_BYTES:,} at most")
