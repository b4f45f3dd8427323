"""The modules of a standalone package: a mixer's source, and of engine and search space what it reaches, no more.

Works on text by its syntax tree and runs none of it. Of every module but the mixer's own only those definitions are
taken that are reached, with comments and formatting as they are; imports of what goes along become relative.
"""

import ast
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from nas.errors import UserError
from nas.parsing import parse

PACKAGE = "language_model"
_MIXER = "mixer"
_TOKENS = ("nas.standalone.byte_tokens", "nas.standalone.file_tokens")
_HOMES = {**dict.fromkeys(_TOKENS, "tokenizer"), "nas.standalone": "", "nas": ""}  # module -> its place in the package
_STANDS_IN = {"jaxtyping": "nas.standalone.shapes"}
_WHOLE = "*"
_WIDTH = 100
_INIT = f'''"""A language model around a token mixer.

`load()` gives the trained model, `Decoder` goes through it token by token, `tokenizer` has its tokens.
"""

from pathlib import Path

from . import tokenizer
from .decoding import Decoder
from .loading import read
from .{_MIXER} import TokenMixer
from .model import LanguageModel

__all__ = ["Decoder", "LanguageModel", "TokenMixer", "load", "tokenizer"]


def load(folder: Path = Path(__file__).parent.parent) -> LanguageModel:
    """The trained model: tokens [batch, time] -> logits [batch, time, vocabulary]."""
    return read(folder, TokenMixer)
'''


class SourcesError(UserError):
    """A mixer can't be packed. The message is one sentence that says why."""


def package_of(mixer: str, space: str, *, trained_tokens: bool) -> dict[str, str]:
    """Path in the package's folder -> text of each module.

    Args:
      mixer: a candidate's source.
      space: the package that its search space is in: what is imported from there goes along.
      trained_tokens: whether the tokens are a tokenizer's, else they are bytes.

    Raises:
      SourcesError: if something that the mixer needs is not there.
    """
    closure = _Closure(mixer, {space: "", **_HOMES})
    for module in ("nas.standalone.decoding", "nas.standalone.loading", _TOKENS[trained_tokens], _MIXER):
        closure.reach(module, _WHOLE)
    return {"__init__.py": _INIT, **closure.files()}


def imported(sources: Iterable[str]) -> set[str]:
    """Top-level names of what these modules import from outside their package."""
    nodes = [node for source in sources for node in ast.walk(parse(source))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in found}


# One module


@dataclass
class _Statement:
    """A statement at the top of a module, with the comments above it: lines [first, last), counted from 0."""

    node: ast.stmt
    first: int
    last: int


class _Module:
    """Attributes:
    name: by which it is imported.
    is_package: whether that is its `__init__`.
    """

    def __init__(self, name: str, text: str, is_package: bool):
        self.name, self.is_package = name, is_package
        self.lines = text.encode("utf-8", "backslashreplace").splitlines(keepends=True)  # as `ast` counts columns
        try:
            self.tree = parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SourcesError(f"the source of {name} does not parse: {error}") from error

    @cached_property
    def statements(self) -> list[_Statement]:
        found, first = [], 0
        for node in self.tree.body:
            found.append(_Statement(node, first, node.end_lineno or node.lineno))
            first = found[-1].last
        return found

    @cached_property
    def is_divisible(self) -> bool:
        """Whether no two statements share a line."""
        return all(statement.node.lineno > statement.first for statement in self.statements)

    @cached_property
    def defining(self) -> dict[str, list[_Statement]]:
        """Name -> the statements that give it its meaning, with those at the top that act on it."""
        found: dict[str, list[_Statement]] = {}
        for statement in self.statements:
            for name in _defined(statement.node):
                found.setdefault(name, []).append(statement)
        own = {name for name, those in found.items() if not any(_is_import(each.node) for each in those)}
        for statement in self.statements:
            for name in _acted_on(statement.node) & own:
                found[name].append(statement)
        return found

    @cached_property
    def always(self) -> list[_Statement]:
        """What is kept whatever is reached: its docstring, and what is no definition."""
        belongs = {id(statement) for those in self.defining.values() for statement in those}
        return [s for s in self.statements if id(s) not in belongs or _is_future(s.node)]

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that a statement imports from."""
        if not node.level:
            return _STANDS_IN.get(node.module or "", node.module or "")
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def chains(self, start: str) -> Iterator[list[str]]:
        """The names that hang on `start`, a dotted path, wherever it is used: `ops.chunks.cut` gives [chunks, cut]."""
        inner = {id(node.value) for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
                path = _path(node)
                if path and (path == start or path.startswith(f"{start}.")):
                    yield path[len(start) + 1 :].split(".") if path != start else []


# All that is reached


@dataclass
class _Closure:
    """What is reached from where `reach` begins."""

    mixer: str
    homes: Mapping[str, str]
    modules: dict[str, _Module] = field(default_factory=dict)
    reached: set[tuple[str, str]] = field(default_factory=set)  # (module, name)
    kept: dict[str, set[int]] = field(default_factory=dict)  # module -> ids of its statements
    inside: dict[str, set[str]] = field(default_factory=dict)  # package -> modules in it that are reached through it

    def reach(self, module: str, name: str) -> None:
        """Takes a name of a module along, with all that it needs.

        Raises:
          SourcesError: if there is no such module, or no such name in it.
        """
        if (module, name) in self.reached:
            return
        self.reached.add((module, name))
        found = self._module(module)
        whole = name == _WHOLE or not found.is_divisible
        if not whole and name not in found.defining:
            raise SourcesError(f"{module} has no `{name}`")
        for statement in [*found.always, *(found.statements if whole else found.defining[name])]:
            self._keep(found, statement, None if whole else name)

    def files(self) -> dict[str, str]:
        """Path in the package -> text."""
        found: dict[str, str] = {}
        for name in [*self.modules]:
            package = name.rpartition(".")[0]
            while self._home(package):  # a module needs the packages around it
                self._module(package)
                package = package.rpartition(".")[0]
        for name, module in sorted(self.modules.items()):
            home = self._home(name) if name != _MIXER else _MIXER
            path = f"{(home or '').replace('.', '/')}{'/__init__' if module.is_package else ''}.py"
            if path in found or path == "/__init__.py":
                raise SourcesError(f"two modules would be {path} in the package: one of them is {name}")
            found[path] = self._text(module)
        return found

    # reaching

    def _module(self, name: str) -> _Module:
        if name not in self.modules:
            if name == _MIXER:
                self.modules[name] = _Module(name, self.mixer, is_package=False)
            else:
                file = _file_of(name)
                if file is None:
                    raise SourcesError(f"the module {name} is not there")
                self.modules[name] = _Module(name, file.read_text(encoding="utf-8"), file.stem == "__init__")
        return self.modules[name]

    def _home(self, name: str) -> str | None:
        """Where a module is in the package, dotted; None if it does not go along."""
        name = _STANDS_IN.get(name, name)
        prefixes = [prefix for prefix in self.homes if name == prefix or name.startswith(f"{prefix}.")]
        if not prefixes:
            return None
        prefix = max(prefixes, key=len)
        return ".".join(filter(None, [self.homes[prefix], name[len(prefix) + 1 :]]))

    def _keep(self, module: _Module, statement: _Statement, name: str | None) -> None:
        """Takes a statement along; of an import what makes `name`, all if that is None."""
        if isinstance(statement.node, ast.Import | ast.ImportFrom):
            self.kept.setdefault(module.name, set()).add(id(statement))
            self._follow(module, statement.node, name)
            return
        if id(statement) in self.kept.setdefault(module.name, set()):
            return
        self.kept[module.name].add(id(statement))
        for node in ast.walk(statement.node):
            if isinstance(node, ast.Name) and node.id in module.defining:
                self.reach(module.name, node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._follow(module, node, None)

    def _follow(self, module: _Module, node: ast.Import | ast.ImportFrom, name: str | None) -> None:
        """Takes along what an import brings."""
        for alias in node.names:
            bound = alias.asname or alias.name.partition(".")[0]
            if name not in (None, bound):
                continue
            if isinstance(node, ast.Import):
                if self._home(alias.name) is not None:
                    self._through(alias.name, module.chains(alias.asname or alias.name))
                continue
            source = module.absolute(node)
            if self._home(source) is None:
                continue
            if alias.name == "*":
                raise SourcesError(f"{module.name} imports all of {source}: name what it needs")
            if self._is_submodule(source, alias.name):
                self._through(f"{source}.{alias.name}", module.chains(bound))
            else:
                self.reach(source, alias.name)

    def _through(self, module: str, chains: Iterable[Sequence[str]]) -> None:
        """Takes along what is used of a module by its name."""
        self._module(module)
        for chain in chains:
            if not chain:  # the module itself, as a value
                self.reach(module, _WHOLE)
            elif self._is_submodule(module, chain[0]):
                self.inside.setdefault(module, set()).add(chain[0])
                self._through(f"{module}.{chain[0]}", [chain[1:]])
            else:
                self.reach(module, chain[0])

    def _is_submodule(self, package: str, name: str) -> bool:
        """Whether it is that, and no name that the package has given another meaning."""
        if self._home(package) and name in self._module(package).defining:
            return False
        return _file_of(f"{package}.{name}") is not None

    # writing

    def _text(self, module: _Module) -> str:
        """A module with what is kept of it."""
        kept = self.kept.get(module.name, set()) | {id(statement) for statement in module.always}
        lines = _edited(module, list(self._edits(module, kept)))
        parts = [b"".join(lines[s.first : s.last]) for s in module.statements if id(s) in kept]
        if parts[1:] and ast.get_docstring(module.tree) and not parts[1].startswith(b"\n"):
            parts[1] = b"\n" + parts[1]
        if all(id(statement) in kept for statement in module.statements):
            parts.append(b"".join(lines[module.statements[-1].last if module.statements else 0 :]))
        text = b"".join(parts).decode("utf-8")
        text = "" if not text.strip() else text.lstrip("\n").rstrip() + "\n"
        if len(parts) < len(module.statements):
            text = f"# What is needed of {module.name}.\n\n{text}"
        submodules = "".join(f"from . import {name}\n" for name in sorted(self.inside.get(module.name, ())))
        return text + (f"\n{submodules}" if submodules else "")

    def _edits(self, module: _Module, kept: set[int]) -> Iterator[tuple[ast.AST, str]]:
        """Nodes and what is to stand in their place."""
        for statement in module.statements:
            if id(statement) not in kept:
                continue
            for node in ast.walk(statement.node):
                if isinstance(node, ast.ImportFrom | ast.Import):
                    yield node, self._import(module, node, at_top=node is statement.node)
        renamed = self._renamed(module)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and (path := _path(node)) in renamed:
                yield node, renamed[cast(str, path)]

    def _import(self, module: _Module, node: ast.Import | ast.ImportFrom, at_top: bool) -> str:
        """An import as it is in the package."""
        aliases = [alias for alias in node.names if not at_top or self._is_reached(module, alias)]
        if isinstance(node, ast.ImportFrom):
            source = module.absolute(node)
            home = self._home(source)
            return _from(node.module or "" if home is None else self._relative(module, home), aliases)
        parts = []
        for alias in aliases:
            home = self._home(alias.name)
            if home is None:
                parts.append(f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else ""))
                continue
            package, _, name = home.rpartition(".")
            bound = alias.asname or self._renamed(module)[alias.name]
            parts.append(_from(self._relative(module, package), [ast.alias(name, None if bound == name else bound)]))
        return "; ".join(parts)

    def _is_reached(self, module: _Module, alias: ast.alias) -> bool:
        bound = alias.asname or alias.name.partition(".")[0]
        return bool({(module.name, bound), (module.name, _WHOLE)} & self.reached) or not module.is_divisible

    def _renamed(self, module: _Module) -> dict[str, str]:
        """Dotted path of a module that is imported and used by its whole path -> its name in the package."""
        taken = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
        found = {}
        for node in ast.walk(module.tree):
            for alias in node.names if isinstance(node, ast.Import) else []:
                if not alias.asname and (home := self._home(alias.name)):
                    name = home.rpartition(".")[2]
                    while name in taken:
                        name += "_"
                    found[alias.name] = name
        return found

    def _relative(self, module: _Module, target: str) -> str:
        """How a module of the package names another: "..ops.chunks"."""
        own = (_MIXER if module.name == _MIXER else self._home(module.name) or "").split(".")
        around = own if module.is_package else own[:-1]
        parts = target.split(".") if target else []
        shared = 0
        while shared < min(len(around), len(parts)) and around[shared] == parts[shared]:
            shared += 1
        return "." * (len(around) - shared + 1) + ".".join(parts[shared:])


def _from(source: str, aliases: Sequence[ast.alias]) -> str:
    names = [alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in aliases]
    line = f"from {source} import {', '.join(names)}"
    return line if len(line) <= _WIDTH else f"from {source} import (\n    " + ",\n    ".join(names) + ",\n)"


def _edited(module: _Module, edits: Sequence[tuple[ast.AST, str]]) -> list[bytes]:
    """The module's lines, as many as before, with other text in the place of some nodes."""
    lines = list(module.lines)
    places = [(e.lineno - 1, e.col_offset, e.end_lineno - 1, e.end_col_offset, text) for e, text in edits]  # type: ignore[attr-defined]
    for first, start, last, end, text in sorted(places, reverse=True):
        after = lines[last][end:]
        for line in range(first + 1, last + 1):
            lines[line] = b""
        lines[first] = lines[first][:start] + text.encode() + after
    return lines


def _file_of(module: str) -> Path | None:
    """Where a module's source is, found without importing any."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations if spec else None) or ():
        place = Path(location).joinpath(*rest)
        for file in (place / "__init__.py", place.parent / f"{place.name}.py"):
            if file.is_file():
                return file
    return None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement gives a meaning to."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.Assign() | ast.AnnAssign():
            return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return []


def _acted_on(node: ast.stmt) -> set[str]:
    """`f` of the statement `f.defvjp(...)`, and of a function that `@f.defjvp` is above."""
    acting: list[ast.expr] = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    if isinstance(node, ast.Expr):
        acting = [node.value]
    functions = [each.func if isinstance(each, ast.Call) else each for each in acting]
    return {path.partition(".")[0] for path in map(_path, functions) if path}


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _path(node: ast.AST) -> str | None:
    """`a.b.c`, where it is no more than names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else None
