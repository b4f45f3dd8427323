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

CUSTOM = "custom"
LAYOUT = ("heads", "key_dim", "value_dim")
Targets = tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """A place in a token mixer that takes one part.

    Attributes:
      methods: what its parts define.
      call: the statement of `forward` that calls it, for a slot that may be empty.
      before: the methods of which the first called in `forward` comes right after that statement.
      simplest: the part that does least.
      words: what to call a part that is not known.
    """

    name: str
    methods: tuple[str, ...]
    simplest: str
    words: str
    call: str = ""
    before: tuple[str, ...] = ()


SLOTS: Mapping[str, Slot] = {
    slot.name: slot
    for slot in (
        Slot("write_rule", ("update",), "additive", "write rule"),
        Slot("decay", ("log_decay",), "off", "decay"),
        Slot("convolution", ("init_state", "forward", "project"), "off", "projection"),
        Slot(
            "feature_map",
            ("feature_map",),
            "off",
            "feature map",
            call="q, k = self.feature_map(q), self.feature_map(k)",
            before=("normalize", "update"),
        ),
        Slot(
            "normalize",
            ("normalize",),
            "off",
            "normalisation",
            call="q, k = self.normalize(q, k)",
            before=("update",),
        ),
        Slot("readout", ("readout",), "plain", "readout"),
        Slot("layout", (), "square", "layout"),
    )
}


@dataclass(frozen=True)
class Part:
    """What fills a slot: methods, and the lines of `__init__` that make their fields.

    Attributes:
      phrase: what it is, for docstrings.
      reason: why it should help, for motivations.
      fields: names that a statement of `__init__` assigns -> that statement.
      methods: name -> definition.
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
    family: str = ""
    needs: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()


@cache
def known_parts(slot: str) -> Mapping[str, Part]:
    """Name -> part, in the order of the file: "off" or whatever does least comes first."""
    source = (Path(__file__).parent / "slots" / f"{slot}.py").read_text()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    public = [node for name, node in classes.items() if not name.startswith("_")]
    parts = [_read_part(slot, node, classes, source) for node in public]
    return {part.name: part for part in parts}


def _read_part(slot: str, node: ast.ClassDef, classes: Mapping[str, ast.ClassDef], source: str) -> Part:
    phrase, _, reason = " ".join((ast.get_docstring(node) or "").split()).partition(": ")
    methods: dict[str, str] = {}
    fields: dict[Targets, str] = {}
    for cls in _lineage(node, classes):
        functions = [statement for statement in cls.body if isinstance(statement, ast.FunctionDef)]
        methods |= {function.name: lines_of(function, source) for function in functions}
        inits = [function for function in functions if function.name == "__init__"]
        fields |= {targets_of(line): lines_of(line, source) for init in inits for line in init.body}
    methods.pop("__init__", None)
    labels = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    return Part(slot, _words(node.name), phrase, reason, fields, methods, **labels)


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


def first_line(node: ast.stmt) -> int:
    """Where `node` starts, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def targets_of(statement: ast.stmt) -> Targets:
    """The names that an assignment binds: "heads" for `self.heads = ...`, "rate" for `rate = ...`."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return ()
    stored = [node for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), ast.Store)]
    return tuple(getattr(node, "attr", getattr(node, "id", "")) for node in stored if not isinstance(node, ast.Tuple))
