"""What models answer, and how an answer becomes source code, or a reason that can be sent back.

An answer is a JSON object. Of the researcher and the engineer, SEARCH/REPLACE blocks or one whole module in a code
fence will do as well, since small models write those better. What is asked for must be there; what stands around it,
unknown keys and too much prose are forgiven. Whatever text comes in, the only exception that comes out is `Unusable`.
"""

import ast
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from nas.llm.quoting import cleaned, disarmed
from nas.parsing import parse as parse_python

ANSWER_LETTERS = 200_000
SOURCE_LETTERS = 60_000
REASON_LETTERS = 400
_EDITS = 64
_STARTS = 200  # braces that are tried as an object's beginning
_SHOWN = 100  # letters of a quoted line
# What CPython's parser raises beside SyntaxError: null bytes and surrogates, and nesting too deep for it.
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


class Unusable(Exception):
    """An answer that came and cannot be used.

    Attributes:
      kind: "json" | "schema" | "diff" | "python" | "copy" | "near copy".
      reason: one line that its author can act on.
    """

    def __init__(self, kind: str, reason: str):
        self.kind, self.reason = kind, _one_line(reason, REASON_LETTERS)
        super().__init__(f"{kind}: {self.reason}")


def _one_line(text: str, letters: int) -> str:
    words = " ".join(cleaned(text[: 4 * letters]).split())
    return words if len(words) <= letters else words[: letters - 3] + "..."


def _prose(letters: int) -> BeforeValidator:
    """Text for people: a few words too many are cut, not refused."""
    return BeforeValidator(lambda value: cleaned(value).strip()[:letters] if isinstance(value, str) else value)


def _given(value: Any) -> Any:
    """None where a model that has to fill in every field wrote an empty one."""
    if isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, list):
        return [edit for edit in value if edit not in ({}, {"search": "", "replace": ""})] or None
    return value


def _number(value: Any) -> Any:
    """Pydantic takes None, where the field may be None, and True for a number."""
    if value is None or isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Prose = Annotated[str, _prose(1000)]
Code = Annotated[str, BeforeValidator(lambda value: cleaned(value) if isinstance(value, str) else value)]

Gain = Annotated[
    float | None,
    Field(ge=-8, le=8, allow_inf_nan=False),
    BeforeValidator(_number),
    WithJsonSchema({"type": "number"}),
]


class Edit(BaseModel):
    """One SEARCH/REPLACE edit of the parent's source."""

    search: Code = Field(description="Lines of the source as they stand; they occur in it exactly once.")
    replace: Code = Field(description="What stands there afterwards.")


Edits = Annotated[list[Edit] | None, BeforeValidator(_given)]
Source = Annotated[Code | None, BeforeValidator(_given)]


class _Change(BaseModel):
    @model_validator(mode="after")
    def _one_way(self) -> "_Change":
        if getattr(self, "edits", None) is None and getattr(self, "source", None) is None:
            raise ValueError("neither edits nor source are given: give one of them")
        return self


class Proposal(_Change):
    """The researcher's: why, how much it should gain, and the change itself, as edits or as a whole module."""

    motivation: Prose = Field(description="What changes and why it should help.")
    because: Prose = Field("", description="Where the predicted gain comes from.")
    # None only in an answer without JSON, which has no place for it.
    predicted_gain: Gain = Field(description="Bits per byte gained over the best parent; positive is better.")
    edits: Edits = Field(None, description="Applied to the first parent in order; null if source is given.")
    source: Source = Field(None, description="The whole module; null if edits are given.")


class Repair(_Change):
    """The engineer's: the broken candidate mended, and whether it still is the same idea."""

    motivation: Prose = Field(description="What was wrong and what mends it.")
    same_idea: bool = Field(description="Whether the candidate still does what its motivation says.")
    edits: Edits = Field(None, description="Applied to the broken candidate in order; null if source is given.")
    source: Source = Field(None, description="The whole module; null if edits are given.")


class Analysis(BaseModel):
    """The analyst's: what a trial showed, and one sentence to remember."""

    text: Annotated[str, _prose(800)] = Field(description="What the result shows, held against the prediction.")
    effect: Literal["helps", "hurts", "none", "fails"] = Field(description="What the change did.")
    lesson: Annotated[str, BeforeValidator(lambda v: _one_line(v, 300) if isinstance(v, str) else v)] = Field(
        description="One sentence that whoever tries such a change next should know."
    )


class Opinion(BaseModel):
    """The judge's, who has seen no score."""

    because: Prose = Field(description="One or two sentences.")
    novelty: int = Field(ge=1, le=10, description="1: as its parents; 10: a mechanism of its own.")
    simplicity: int = Field(ge=1, le=10, description="1: needlessly complicated; 10: nothing could go.")


class Prompt(BaseModel):
    """The editor's: a variant of a system prompt."""

    # It becomes a system message, where nothing stands between marks that make it data.
    text: Annotated[str, BeforeValidator(lambda value: disarmed(value) if isinstance(value, str) else value)] = Field(
        min_length=1, max_length=12_000, description="The whole system prompt."
    )


Model = TypeVar("Model", bound=BaseModel)


def schema(model: type[BaseModel]) -> tuple[str, dict[str, Any]]:
    """(name, JSON schema) as strict structured outputs take it: every property required, no others, no limits."""
    full = model.model_json_schema()
    return model.__name__.lower(), _strict(full, full.get("$defs", {}))


def _strict(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return _strict(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    kept = {key: node[key] for key in ("type", "enum", "description") if key in node}
    if "anyOf" in node:
        kept["anyOf"] = [_strict(option, definitions) for option in node["anyOf"]]
    if "items" in node:
        kept["items"] = _strict(node["items"], definitions)
    if "properties" in node:
        kept["properties"] = {name: _strict(value, definitions) for name, value in node["properties"].items()}
        kept |= {"required": list(node["properties"]), "additionalProperties": False}
    return kept


# Reading an answer.


def parse(model: type[Model], text: str) -> Model:
    """The answer in `text`, whatever stands around it.

    Raises:
      Unusable: "json" where there is none, "schema" where it is not what was asked for.
    """
    if len(text) > ANSWER_LETTERS:
        raise Unusable("json", f"the answer has {len(text):,} characters, more than {ANSWER_LETTERS:,}")
    said = _without_thoughts(text)
    found, problem = _object_in(said, set(model.model_fields))
    change = _change_without_json(said) if issubclass(model, _Change) else None
    if found is not None:
        given = {key: value for key, value in found.items() if value is not None}
        return _validated(model, given if change is None or {"edits", "source"} & given.keys() else {**change, **given})
    if change is None:
        raise Unusable("json", problem)
    # What such an answer cannot say: a repair is taken for the same idea, a proposal predicts nothing.
    unsaid = {"same_idea": True} if issubclass(model, Repair) else {"because": "", "predicted_gain": None}
    return model.model_construct(**unsaid, **change)


def _validated(model: type[Model], found: dict[str, Any]) -> Model:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise Unusable("schema", "; ".join(map(_problem, error.errors(include_url=False)[:3]))) from None
    except (RecursionError, ValueError) as error:
        raise Unusable("schema", f"the answer's JSON can't be read: {error}") from None


def _problem(error: Mapping[str, Any]) -> str:
    at, what = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
    return f"`{at}`: {what}" if at else what


def _without_thoughts(text: str) -> str:
    """What follows a reasoning model's thoughts, if anything does; templates often leave out their opening tag."""
    said = text.rpartition("</think>")[2]
    return said if said.strip() else text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def _object_in(text: str, keys: set[str]) -> tuple[dict[str, Any] | None, str]:
    """The object in `text` with the most of `keys`, the last of equals; else None, and what is wrong with the first."""
    best: dict[str, Any] | None = None
    most, position, problem = 0, 0, ""
    for _ in range(_STARTS):
        position = text.find("{", position)
        if position < 0:
            break
        try:
            found, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            problem = problem or f"the JSON object can't be read: {words}"
            position += 1
            continue
        if len(keys & found.keys()) >= max(most, 1):
            best, most = found, len(keys & found.keys())
    return best, problem or "there is no JSON object in the answer that has the keys asked for"


def _change_without_json(text: str) -> dict[str, Any] | None:
    """Motivation, and edits or source, of SEARCH/REPLACE blocks or of the only fence around a whole module."""
    start, edits = _blocks(text)
    if edits:
        return {"motivation": _prose_before(text, start), "edits": edits, "source": None}
    fences = [fence for fence in _FENCE.finditer(text) if "class TokenMixer" in fence[1]]
    if len(fences) == 1:
        return {"motivation": _prose_before(text, fences[0].start()), "edits": None, "source": cleaned(fences[0][1])}
    return None


_SEARCH = re.compile(r"<{5,9} ?SEARCH", re.IGNORECASE)
_BETWEEN = re.compile(r"={5,9}\s*$")
_REPLACE = re.compile(r">{5,9} ?REPLACE", re.IGNORECASE)
_FENCE = re.compile(r"^```[a-zA-Z0-9]*[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(text: str) -> tuple[int, list[Edit]]:
    """(where the first SEARCH/REPLACE block begins, the edits of all whole blocks): one pass over the lines."""
    first, at = -1, 0
    edits: list[Edit] = []
    search: list[str] | None = None  # None: outside of a block
    replace: list[str] | None = None  # None: not yet there
    for line in text.split("\n"):
        if _SEARCH.match(line):
            first = at if first < 0 else first
            search, replace = [], None
        elif search is not None and replace is None and _BETWEEN.match(line):
            replace = []
        elif search is not None and replace is not None and _REPLACE.match(line):
            edits.append(Edit(search="".join(search), replace="".join(replace)))
            search = replace = None
        elif search is not None:
            (search if replace is None else replace).append(f"{line}\n")
        at += len(line) + 1
    return first, edits


def _prose_before(text: str, end: int) -> str:
    lines = [line for line in text[:end].splitlines() if not line.startswith("```")]
    return cleaned("\n".join(lines)).strip()[:1000]


# From an answer to source.


def source_of(answer: Proposal | Repair, parent_source: str) -> str:
    """The module that an answer describes: its edits of `parent_source`, or the source that it gives.

    Raises:
      Unusable: "diff" where an edit does not apply, "python" where the result is no module with a TokenMixer.
    """
    source = apply_edits(parent_source, answer.edits) if answer.edits else _without_fence(answer.source or "")
    if len(source) > SOURCE_LETTERS:
        raise Unusable("python", f"the module has {len(source):,} characters, more than {SOURCE_LETTERS:,}")
    try:
        tree = parse_python(source)
    except _UNREADABLE as error:
        raise Unusable("python", _unreadable(source, error)) from None
    if not any(isinstance(node, ast.ClassDef) and node.name == "TokenMixer" for node in tree.body):
        raise Unusable("python", "the module defines no class TokenMixer: give the whole module")
    return source


def _unreadable(source: str, error: BaseException) -> str:
    if not isinstance(error, SyntaxError):
        return f"the module does not parse: {error or 'it is nested too deeply'}"
    lines = source.splitlines()
    at = error.lineno or 0
    line = f": `{lines[at - 1].strip()[:_SHOWN]}`" if 0 < at <= len(lines) else ""
    return f"the module does not parse: {error.msg} at line {at}{line}"


def _without_fence(source: str) -> str:
    fence = _FENCE.search(source) if source.lstrip().startswith("```") else None
    return fence[1] if fence else source


def apply_edits(source: str, edits: Sequence[Edit]) -> str:
    """`source` after `edits`, one after the other.

    A search text is found as it stands, or else as whole lines, whatever spaces they end with and however far all of
    them are indented; the replacement is then indented as the source is.

    Raises:
      Unusable: "diff" where a search text does not occur exactly once, or nothing changes.
    """
    if not edits:
        raise Unusable("diff", "there are no edits")
    if len(edits) > _EDITS:
        raise Unusable("diff", f"there are {len(edits)} edits, more than {_EDITS}: give the whole module as source")
    before = after = _unix(source)
    parses = _parses_within(SOURCE_LETTERS)
    for number, edit in enumerate(edits, 1):
        after = _applied(after, _unix(edit.search), _unix(edit.replace), f"edit {number}", parses)
        if len(after) > SOURCE_LETTERS:
            raise Unusable("diff", f"edit {number}: the source has more than {SOURCE_LETTERS:,} characters after it")
    if after == before:
        raise Unusable("diff", "the edits change nothing")
    return after


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _applied(source: str, search: str, replace: str, name: str, parses: Callable[[str], bool]) -> str:
    if not search.strip():
        raise Unusable("diff", f"{name}: its search text is empty: quote the lines that it replaces")
    replace = _with_line_breaks_of(search, replace)
    places = _places(source, search)
    if len(places) == 1:
        return _with_text(source, places[0], search, replace, parses)
    if not places:
        shifted = _shifted_places(source, search)
        if len(shifted) == 1:
            return _with_lines(source, *shifted[0], replace)
        places = [place for place, _, _ in shifted]
        if not places:
            raise Unusable("diff", f"{name}: its search text does not occur{_nearest(source, search)}")
    numbers = ", ".join(str(source.count("\n", 0, place) + 1) for place in places[:5])
    raise Unusable(
        "diff",
        f"{name}: its search text occurs {len(places)} times (lines {numbers}): quote more lines around it",
    )


def _with_line_breaks_of(search: str, replace: str) -> str:
    """A line break at the ends of the search text alone is a slip: it would join lines that were two."""
    if replace.strip() and search.startswith("\n") and not replace.startswith("\n"):
        replace = "\n" + replace
    if replace.strip() and search.endswith("\n") and not replace.endswith("\n"):
        replace += "\n"
    return replace


def _places(text: str, part: str) -> list[int]:
    places: list[int] = []
    at = text.find(part)
    while at >= 0 and len(places) < 100:
        places.append(at)
        at = text.find(part, at + 1)
    return places


def _with_text(source: str, at: int, search: str, replace: str, parses: Callable[[str], bool]) -> str:
    """A model that quotes one line without its indentation leaves out that of the lines it puts there too, or not."""
    before, after = source[:at], source[at + len(search) :]
    plain = before + replace + after
    indentation = before[before.rfind("\n") + 1 :]
    if not indentation or indentation.strip() or "\n" in search.strip("\n"):
        return plain
    shifted = before + _shift(replace, len(indentation)).lstrip(" ") + after
    outermost = [line for line in replace.split("\n")[1:] if line.strip() and not line[0].isspace()]
    module_level = not search.startswith(_DEFINING) and all(line.startswith(_DEFINING) for line in outermost)
    if outermost and not module_level:
        return shifted
    return shifted if shifted != plain and not parses(plain) and parses(shifted) else plain


_DEFINING = ("def ", "class ", "@", "#")


def _parses_within(letters: int) -> Callable[[str], bool]:
    """Whether a source parses, for sources of so many letters altogether: of those that come after, none does.

    The edits of one answer would otherwise have the parser read the same long source again and again.
    """

    def parses(source: str) -> bool:
        nonlocal letters
        letters -= len(source)
        if letters < 0:
            return False
        try:
            parse_python(source)
        except _UNREADABLE:
            return False
        return True

    return parses


def _shifted_places(source: str, search: str) -> list[tuple[int, int, int]]:
    """Where the lines of `search` stand when all are indented alike: (position, how many lines, spaces further)."""
    text = "\n".join(line.rstrip() for line in source.split("\n"))
    wanted = "\n".join(line.rstrip() for line in search.split("\n")).strip("\n")
    if _unindented(wanted) not in _unindented(text):
        return []
    first = wanted.split("\n", 1)[0]
    alike = [line for line in text.split("\n") if line.strip() == first.strip()]
    found = []
    for shift in sorted({_indent(line) - _indent(first) for line in alike}):
        lines = _shift(wanted, shift)
        if _shift(lines, -shift) == wanted:
            found += [(at, wanted.count("\n") + 1, shift) for at in _places(f"\n{text}\n", f"\n{lines}\n")]
    kept = source.split("\n")
    starts = [0]
    for line in kept:
        starts.append(starts[-1] + len(line) + 1)
    return [(starts[text.count("\n", 0, at)], count, shift) for at, count, shift in found]


def _with_lines(source: str, at: int, count: int, shift: int, replace: str) -> str:
    lines = source.split("\n")
    first = source.count("\n", 0, at)
    new = _shift(replace.strip("\n"), shift).split("\n") if replace.strip() else []
    return "\n".join([*lines[:first], *new, *lines[first + count :]])


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n"))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _shift(text: str, spaces: int) -> str:
    """Every line that is not blank moved by `spaces`, to the left at most by what it is indented."""

    def moved(line: str) -> str:
        return " " * spaces + line if spaces > 0 else line[min(-spaces, _indent(line)) :]

    return "\n".join(moved(line) if line.strip() else line for line in text.split("\n"))


def _nearest(source: str, search: str) -> str:
    """Which line of `search` is not in `source`, and the line that comes nearest to it."""
    numbered = {line.strip()[:_SHOWN]: number for number, line in reversed(list(enumerate(source.split("\n"), 1)))}
    wanted = [line.strip()[:_SHOWN] for line in search.split("\n") if line.strip()]
    strange = next((line for line in wanted if line not in numbered), None)
    if strange is None:
        return " in one piece, though each of its lines does: quote lines as they stand, none left out"
    nearest = difflib.get_close_matches(strange, [line for line in numbered if line], n=1, cutoff=0.5)
    if not nearest:
        return f": no line is like its `{strange}`"
    return f": instead of its `{strange}` line {numbered[nearest[0]]} is `{nearest[0]}`"
