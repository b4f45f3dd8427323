"""The grammar's vocabulary: which slots a token mixer has, and which parts are known for each.

Parts are read from `slots/` as text: importing this module costs milliseconds and no JAX.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nas.parsing import parse

CUSTOM = "custom"
LAYOUT = ("heads", "key_dim", "value_dim")
Targets = tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """A place in a token mixer that takes one part.

    Attributes:
      methods: what its parts define.
      call: the statement of `forward` that calls it, unless a part has one of its own; none for a slot that `update`,
        `readout`'s return or `__init__` reads.
      simplest: the part that does least.
      words: what to call a part that is not known.
    """

    name: str
    methods: tuple[str, ...]
    simplest: str
    words: str
    call: str = ""


SLOTS: Mapping[str, Slot] = {
    slot.name: slot
    for slot in (
        Slot(
            "write_rule",
            ("update",),
            "additive",
            "write rule",
            call='y, state["memory"] = self.update(x, q, k, v, state["memory"])',
        ),
        Slot("decay", ("log_decay",), "off", "decay"),
        Slot("strength", ("write_strength",), "constant", "write strength"),
        Slot("convolution", ("project",), "off", "projection", call="q, k, v = self.project(x)"),
        Slot(
            "feature_map",
            ("feature_map",),
            "off",
            "feature map",
            call="q, k = self.feature_map(q), self.feature_map(k)",
        ),
        Slot("normalize", ("normalize",), "off", "normalisation", call="q, k = self.normalize(q, k)"),
        Slot(
            "position",
            ("rotate",),
            "off",
            "position",
            call='q, k, state["position"] = self.rotate(q, k, state["position"])',
        ),
        Slot(
            "hybrid",
            ("look_back",),
            "off",
            "hybrid",
            call='y, state["window"] = self.look_back(x, q, k, v, y, state["window"])',
        ),
        Slot("skip", ("skip",), "off", "skip", call="y = self.skip(q, k, v, y)"),
        Slot("readout", ("readout",), "plain", "readout"),
        Slot("layout", (), "square", "layout"),
    )
}
# The order in which `forward` calls them.
PIPELINE = ("convolution", "feature_map", "normalize", "position", "write_rule", "hybrid", "skip", "readout")


@dataclass(frozen=True)
class Part:
    """What fills a slot: methods, the lines of `__init__` that make their fields, and what they keep over time.

    Attributes:
      phrase: what it is, for docstrings.
      reason: why it should help, for motivations.
      fields: names that a statement of `__init__` assigns -> that statement.
      methods: name -> definition.
      call: the statement of `forward` that calls it; empty if none does.
      state: key of the decoding state -> the expression of `init_state` that it starts from.
      family: its word in the name of the family, for a slot that decides the state transition.
      needs: what another slot must give for this part to be valid, e.g. `("unit keys",)`.
      gives: what it gives to others.
    """

    slot: str
    name: str
    phrase: str = ""
    reason: str = ""
    fields: Mapping[Targets, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    call: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


@cache
def known_parts(slot: str) -> Mapping[str, Part]:
    """Name -> part, in the order of the file: "off" or whatever does least comes first."""
    source = (Path(__file__).parent / "slots" / f"{slot}.py").read_text()
    classes = {node.name: node for node in parse(source).body if isinstance(node, ast.ClassDef)}
    public = [node for name, node in classes.items() if not name.startswith("_")]
    parts = [_read_part(slot, node, classes, source) for node in public]
    return {part.name: part for part in parts}


def _read_part(slot: str, node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], source: str) -> Part:
    phrase, _, reason = " ".join((ast.get_docstring(node) or "").split()).partition(": ")
    methods: dict[str, str] = {}
    fields: dict[Targets, str] = {}
    state: dict[str, str] = {}
    labels: dict[str, Any] = {}
    for cls in _lineage(node, classes):
        for statement in cls.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                labels[statement.targets[0].id] = ast.literal_eval(statement.value)
            elif not isinstance(statement, ast.FunctionDef):
                continue
            elif statement.name == "__init__":
                fields |= {targets_of(line): lines_of(line, source) for line in statement.body}
            elif statement.name == "init_state":
                state = dict(state_entries(statement, source) or {})
            else:
                methods[statement.name] = lines_of(statement, source)
    if methods:
        labels.setdefault("call", SLOTS[slot].call)
    return Part(slot, _words(node.name), phrase, reason, fields, methods, state=state, **labels)


def _lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Base classes first, so that a part overrides what it inherits."""
    for base in node.bases:
        yield from _lineage(classes[base.id], classes) if isinstance(base, ast.Name) else ()
    yield node


def _words(name: str) -> str:
    """`PerHead` -> "per head"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def lines_of(node: ast.stmt, source: str) -> str:
    """The whole lines of `node`, without its indentation."""
    lines = source.splitlines()[first_line(node) - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines))


def nodes_of(node: ast.AST) -> list[ast.AST]:
    """As `ast.walk`, in a third of its time: whoever proposes thousands of candidates spends most of it here."""
    found = [node]
    for one in found:  # it grows
        for value in vars(one).values():
            if isinstance(value, ast.AST):
                found.append(value)
            elif isinstance(value, list):
                found += [item for item in value if isinstance(item, ast.AST)]
    return found


def _segment(node: ast.expr, source: str) -> str:
    """As `ast.get_source_segment`, which goes through the whole source letter by letter. Columns count bytes."""
    lines = [line.encode() for line in source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno]]
    lines[-1] = lines[-1][: node.end_col_offset]
    lines[0] = lines[0][node.col_offset :]
    return b"".join(lines).decode()


def first_line(node: ast.stmt) -> int:
    """Where `node` starts, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def targets_of(statement: ast.stmt) -> Targets:
    """The names that an assignment binds: "heads" for `self.heads = ...`, "rate" for `rate = ...`."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return ()
    stored = [node for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Store)]
    return tuple(getattr(node, "attr", getattr(node, "id", "")) for node in stored if not isinstance(node, ast.Tuple))


def state_entries(init_state: ast.FunctionDef, source: str) -> Mapping[str, str] | None:
    """Key -> expression, of the dictionary that `init_state` returns; None if it does anything else."""
    match init_state.body:
        case [ast.Return(value=ast.Dict(keys=keys, values=values))]:
            names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            texts = [_segment(value, source) for value in values]
            return dict(zip(names, texts, strict=True)) if len(names) == len(keys) else None
    return None
