"""What can be seen without running anything: a filter of the source, not a wall (the wall is the box).

Every dotted name is resolved to the module it was imported from, so that `from jax import pure_callback`,
`import jax as j; j.pure_callback` and `call = jax.pure_callback` are one and the same.
"""

import ast
import importlib
import keyword
import string
import sys
import types
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from contextlib import contextmanager
from typing import Any

from nas.gate.settings import Fault, GateSettings


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FORBIDDEN_NAMES = _words(
    """
    open exec eval compile globals locals breakpoint memoryview delattr print BaseException GeneratorExit
    KeyboardInterrupt SystemExit
    """
)
# Built-ins whose names people also give to their own variables: those are theirs to use, in the function they are in.
FORBIDDEN_BUILTINS = frozenset(("vars", "dir", "input", "exit", "quit", "help", "id", "hash"))
# They reach any attribute by its name, so each call is looked at: they are never handed on.
CALLED_ONLY = frozenset(("getattr", "hasattr", "setattr", "type", "super"))
# Anywhere, whatever they hang on: the ways out of a traced function and into the interpreter.
FORBIDDEN_ATTRIBUTES = _words(
    """
    pure_callback io_callback debug_callback host_callback builtins importlib subprocess ctypes gi_frame
    gi_code cr_frame cr_code ag_frame ag_code tb_frame tb_next co_code co_consts func_globals func_code f_globals
    f_locals f_builtins f_back f_code mro with_traceback add_note default_registry print_saved_residuals
    unsafe_buffer_pointer
    """
)
REGISTERING = "register"  # the engine would run what was registered
# What a mixer needs of the package `jax` itself; its submodules have their own lines in `allowed_imports`.
JAX_ATTRIBUTES = _words(
    """
    Array ShapeDtypeStruct numpy nn lax random scipy tree tree_util typing dtypes vmap jit checkpoint remat
    ad_checkpoint named_call named_scope eval_shape grad value_and_grad vjp jvp jacfwd jacrev linearize
    hessian custom_vjp custom_jvp custom_gradient
    """
)
FORBIDDEN_PATHS = (
    "jax.numpy.load",
    "jax.numpy.save",
    "jax.numpy.savez",
    "jax.numpy.fromfile",
    "jax.numpy.set_printoptions",
    "jax.numpy.printoptions",
    "jax.lax.platform_dependent",  # the gate runs on a CPU, training elsewhere
    "jax.lax.infeed",
    "jax.lax.outfeed",
    "jax.lax.create_token",
    "jax.lax.after_all",
    "flax.nnx.use_eager_sharding",
    "flax.nnx.set_graph_mode",
    "flax.nnx.set_graph_updates",
    "flax.nnx.jit",
    "flax.nnx.display",
    "flax.nnx.tabulate",
    "flax.nnx.bridge",
)
# What there is to use of modules whose other names write to what they are given, keep a cache, or make code of text.
ALLOWED_NAMES = {
    "functools": _words("partial reduce"),
    "dataclasses": _words("dataclass field replace"),
    "einops": _words("rearrange reduce repeat einsum pack unpack"),
    "typing": _words(
        """
        Any Callable Iterable Sequence Mapping NamedTuple Optional Union Tuple List Dict Set Type Literal Generic
        TypeVar TypeAlias ClassVar Final Annotated Self cast TYPE_CHECKING Protocol
        """
    ),
}
DEFINABLE = frozenset({"__init__", "__call__", "__post_init__"})


def check(source: str, settings: GateSettings) -> str:
    """What was seen, in words.

    Raises:
      Fault: naming the line and what is wrong with it.
    """
    size = len(source.encode("utf-8", "surrogatepass"))
    if size > settings.max_source_bytes:
        raise Fault("static", f"the source has {size} bytes, more than {settings.max_source_bytes}")
    try:
        tree = ast.parse(source)
        _Reader(settings.allowed_imports).read(tree)
    except SyntaxError as error:
        raise Fault("static", f"does not parse: {error.msg} at line {error.lineno}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Fault("static", f"does not parse: {type(error).__name__}: {error}") from None
    return f"{size} bytes, {len(source.splitlines())} lines, allowed imports only"


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


class _Reader(ast.NodeVisitor):
    """Walks a module once; the first thing that is not allowed ends the walk."""

    def __init__(self, allowed: Iterable[str]):
        self.allowed = tuple(allowed)
        self.paths: dict[str, str] = {}  # local name -> dotted path of what was imported
        self.local: list[frozenset[str]] = []  # names of the functions around the present node, outermost first
        self.methods: set[int] = set()  # of the functions written directly in a class

    def read(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        self._shadows(tree, frozenset(self.paths))
        for node in ast.walk(tree):  # nn = jax.nn
            if isinstance(node, ast.Assign) and (path := self._path(node.value)):
                self.paths |= {target.id: path for target in node.targets if isinstance(target, ast.Name)}
        self.visit(tree)

    def _shadows(self, tree: ast.Module, imported: frozenset[str]) -> None:
        """One name, one meaning: what is imported is nothing else, `self` is a method's first argument."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.methods |= {id(inner) for inner in node.body if _is_method(inner)}
        for node in ast.walk(tree):
            for name in _bound(node):
                if _dunder(name) and not isinstance(node, ast.FunctionDef):  # DEFINABLE
                    raise self._refuse(node, f"the name `{name}` is not allowed")
                if name in FORBIDDEN_NAMES | CALLED_ONLY:
                    raise self._refuse(node, f"the name `{name}` is not allowed")
                if name in imported and not isinstance(node, ast.alias):
                    raise self._refuse(node, f"`{name}` is imported and also given another meaning")
                if name == "self" and not isinstance(node, ast.arg):
                    raise self._refuse(node, "`self` is only the first argument of a method")
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                names = [argument.arg for argument in _arguments(node)]
                if "self" in names[id(node) in self.methods :]:
                    raise self._refuse(node, "`self` is only the first argument of a method")

    def _refuse(self, node: ast.AST, reason: str) -> Fault:
        return Fault("static", f"{reason} at line {getattr(node, 'lineno', '?')}")

    # Imports and what hangs on them.

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise self._refuse(node, "a relative import is not allowed")
            if node.module == "__future__" and [alias.name for alias in node.names] == ["annotations"]:
                return
            for alias in node.names:
                path = f"{node.module}.{alias.name}"
                if alias.name == "*" or not (self._may_import(node.module) or path in self.allowed):
                    raise self._refuse(node, f"`from {node.module} import {alias.name}` is not allowed")
                self._check_path(path, node)
                self.paths[alias.asname or alias.name] = path
            return
        for alias in node.names:
            if not self._may_import(alias.name):
                raise self._refuse(node, f"`import {alias.name}` is not allowed")
            self.paths[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )

    def _may_import(self, module: str) -> bool:
        """Modules that are allowed, and those of JAX's that can be had as its attributes."""
        parts = module.split(".")
        part_of_jax = "jax" in self.allowed and parts[0] == "jax" and len(parts) > 1 and parts[1] in JAX_ATTRIBUTES
        return module in self.allowed or part_of_jax

    def _path(self, node: ast.AST) -> str | None:
        """`jnp.linalg.norm` -> "jax.numpy.linalg.norm"; None where it does not hang on an import."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.paths:
            return None
        return ".".join([self.paths[node.id], *reversed(names)])

    def _check_path(self, path: str, node: ast.AST) -> None:
        canonical, reached = self._canonical(path)
        for name in {path: 0, canonical: 0}:
            self._check_name(name, node)
        if isinstance(reached, MutableMapping | MutableSet | MutableSequence) or _keeps_state(reached):
            raise self._refuse(node, f"`{path}` is not allowed: what it holds can be changed")

    def _canonical(self, path: str) -> tuple[str, Any]:
        """What is reached through another module's imports: "flax.nnx.nn.linear.jax.debug" is "jax.debug".

        And the first object on the way that is no module, None where there is none.
        """
        module = max((name for name in self.allowed if within(path, name)), key=len, default=None)
        if module is None:
            return path, None
        try:
            reached: Any = importlib.import_module(module)
        except ImportError:
            return path, None
        name, rest = module, path.split(".")[module.count(".") + 1 :]
        while rest and isinstance(reached := getattr(reached, rest[0], None), types.ModuleType):
            name, rest = reached.__name__, rest[1:]
        return ".".join([name, *rest]), reached if rest else None

    def _check_name(self, path: str, node: ast.AST) -> None:
        parts = path.split(".")
        if any(part.startswith("_") for part in parts):
            raise self._refuse(node, f"`{path}` is private")
        if forbidden := FORBIDDEN_ATTRIBUTES.intersection(parts):
            raise self._refuse(node, f"`{path}` is not allowed ({', '.join(sorted(forbidden))})")
        if parts[0] == "jax" and len(parts) > 1 and parts[1] not in JAX_ATTRIBUTES:
            raise self._refuse(node, f"`{path}` is not allowed: a mixer uses no jax.{parts[1]}")
        if any(part.startswith(REGISTERING) for part in parts[1:]):
            raise self._refuse(node, f"`{path}` is not allowed: a mixer registers nothing")
        for module, names in ALLOWED_NAMES.items():
            if within(path, module) and path != module and path.split(".")[module.count(".") + 1] not in names:
                raise self._refuse(node, f"`{path}` is not allowed: of {module} use {', '.join(sorted(names))}")
        if any(path == refused or path.startswith(refused + ".") for refused in FORBIDDEN_PATHS):
            raise self._refuse(node, f"`{path}` is not allowed")
        if not any(within(path, module) or within(module, path) for module in self.allowed):
            raise self._refuse(node, f"`{path}` is not in an allowed module")

    def _is_module(self, path: str) -> bool:
        known = {*self.allowed, *(path for path in self.paths.values() if path in sys.modules)}
        return path in known or any(module.startswith(path + ".") for module in known)

    # Nodes.

    def visit_Name(self, node: ast.Name) -> None:
        builtin = node.id in FORBIDDEN_BUILTINS and isinstance(node.ctx, ast.Load)
        if builtin and not any(node.id in names for names in self.local):
            raise self._refuse(node, f"the built-in `{node.id}` is not allowed")
        if node.id in FORBIDDEN_NAMES or _dunder(node.id):
            raise self._refuse(node, f"the name `{node.id}` is not allowed")
        if node.id in CALLED_ONLY:
            raise self._refuse(node, f"`{node.id}` may be called, and not be handed on")
        if isinstance(node.ctx, ast.Load) and (path := self.paths.get(node.id)) and self._is_module(path):
            raise self._refuse(node, f"the module `{path}` is used as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if path := self._path(node):
            self._check_path(path, node)
            if self._is_module(path):
                raise self._refuse(node, f"the module `{path}` is used as a value")
            return
        if node.attr in ("format", "format_map"):
            raise self._refuse(node, "`format` is allowed on a plain string in quotes only")
        if _dunder(node.attr) or node.attr in FORBIDDEN_ATTRIBUTES or node.attr.startswith(REGISTERING):
            raise self._refuse(node, f"the attribute `{node.attr}` is not allowed")
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._writes(node.targets)
        if not self._path(node.value) or not all(isinstance(target, ast.Name) for target in node.targets):
            self.visit(node.value)
        else:
            self._check_path(self._path(node.value) or "", node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._writes([node.target])
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._writes([node.target])
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._writes(node.targets)

    def visit_For(self, node: ast.For) -> None:
        self._writes([node.target])
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._writes([node.target])
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._writes([node.optional_vars])
        self.visit(node.context_expr)

    def _writes(self, targets: Iterable[ast.AST]) -> None:
        """Attributes are written on `self` alone, items on anything that was not imported."""
        for target in _flat(targets):
            if isinstance(target, ast.Name):
                self.visit(target)
                continue
            if not isinstance(target, ast.Attribute | ast.Subscript):
                continue
            root, attribute = _root(target)
            if isinstance(root, ast.Name) and root.id in self.paths:
                raise self._refuse(target, f"a write to the imported `{self.paths[root.id]}` is not allowed")
            if attribute and not (isinstance(root, ast.Name) and root.id == "self"):
                raise self._refuse(target, "a write to an attribute of anything but `self` is not allowed")
            self.generic_visit(target)
            if isinstance(target, ast.Attribute) and _dunder(target.attr):
                raise self._refuse(target, f"the attribute `{target.attr}` is not allowed")

    def visit_Call(self, node: ast.Call) -> None:
        if any(_dunder(given.arg or "") for given in node.keywords):
            raise self._refuse(node, "an argument whose name begins and ends with `__` is not allowed")
        match node.func:
            case ast.Name(id="getattr" | "hasattr"):
                own = bool(node.args) and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
                if len(node.args) < 2 or not _plain_name(node.args[1], parts=own):
                    raise self._refuse(node, "getattr and hasattr need a plain name in quotes")
            case ast.Name(id="setattr"):
                own = len(node.args) == 3 and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
                if not own or not _plain_name(node.args[1], parts=True):
                    raise self._refuse(node, "setattr is allowed on `self` with a plain name only")
            case ast.Name(id="type"):
                if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
                    raise self._refuse(node, "`type` is allowed with one argument only")
            case ast.Name(id="super"):
                if node.args or node.keywords:
                    raise self._refuse(node, "`super` is allowed without arguments only")
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"):
                self.visit(node.func.value)
            case ast.Attribute(value=ast.Constant(value=str(text)), attr="format") if _plain_format(text):
                pass
            case _:
                self.visit(node.func)
        for argument in [*node.args, *node.keywords]:
            self.visit(argument)

    @contextmanager
    def _inside(self, names: Iterable[str]) -> Iterator[None]:
        self.local.append(frozenset(names))
        yield
        self.local.pop()

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        with self._inside(argument.arg for argument in _arguments(node)):
            self.visit(node.body)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        if node.patterns or node.kwd_attrs:
            raise self._refuse(node, "a pattern that reads attributes is not allowed")
        self.visit(node.cls)

    def visit_alias(self, node: ast.alias) -> None:
        if node.asname and (_dunder(node.asname) or node.asname in FORBIDDEN_NAMES):
            raise self._refuse(node, f"the name `{node.asname}` is not allowed")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if _dunder(node.name) and node.name not in DEFINABLE:
            raise self._refuse(node, f"a definition of `{node.name}` is not allowed")
        for outside in [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]:
            self.visit(outside)
        with self._inside(_own_names(node)):
            for statement in node.body:
                self.visit(statement)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        raise self._refuse(node, "an async function is not allowed")

    def visit_Global(self, node: ast.Global) -> None:
        raise self._refuse(node, "`global` is not allowed")

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        raise self._refuse(node, "`nonlocal` is not allowed")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any(keyword.arg != "pytree" for keyword in node.keywords):
            raise self._refuse(node, f"class `{node.name}` has a metaclass or class arguments")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is None:
            raise self._refuse(node, "a bare `except` is not allowed")
        self.generic_visit(node)


def within(path: str, module: str) -> bool:
    """Whether the dotted `path` is `module` or lies in it."""
    return path == module or path.startswith(module + ".")


def _keeps_state(value: Any) -> bool:
    """Whether it is an instance made to be written to: a context, a lock, a registry."""
    kind = type(value).__module__.split(".")[0].lstrip("_")
    return kind in ("flax", "threading", "thread", "weakref", "contextvars", "nas") and not callable(value)


def _flat(targets: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for target in targets:
        if isinstance(target, ast.Tuple | ast.List):
            yield from _flat(target.elts)
        elif isinstance(target, ast.Starred):
            yield from _flat([target.value])
        else:
            yield target


def _root(target: ast.AST) -> tuple[ast.AST, bool]:
    """What `a` of `a.b[0].c` is, and whether an attribute is written (or passed through) on the way to it."""
    attribute = isinstance(target, ast.Attribute)
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target, attribute


def _plain_name(node: ast.AST, parts: bool) -> bool:
    """An allowed identifier in quotes; with `parts` also an f-string that begins with a letter, as in f"layer{i}"."""
    if isinstance(node, ast.Constant):
        name = node.value
        return isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name) and _harmless(name)
    if not (parts and isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant)):
        return False
    written = [part.value for part in node.values if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return written[0][:1].isalpha() and all(f"x{part}".isidentifier() and _harmless(part) for part in written)


def _harmless(name: str) -> bool:
    return "__" not in name and name not in FORBIDDEN_ATTRIBUTES and not name.startswith(REGISTERING)


def _plain_format(text: str) -> bool:
    """Whether `text.format(...)` reads no attribute or item of what it is given."""
    fields = [(field, spec or "") for _, field, spec, _ in string.Formatter().parse(text) if field is not None]
    return all((not field or field.isidentifier() or field.isdigit()) and "{" not in spec for field, spec in fields)


def _is_method(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    return not any(isinstance(by, ast.Name) and by.id in ("staticmethod", "classmethod") for by in node.decorator_list)


def _arguments(node: ast.FunctionDef | ast.Lambda) -> list[ast.arg]:
    of = node.args
    return [*of.posonlyargs, *of.args, *of.kwonlyargs, *filter(None, (of.vararg, of.kwarg))]


def _bound(node: ast.AST) -> list[str]:
    """The names that this node itself gives a meaning to."""
    match node:
        case ast.arg(arg=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.alias(name=path, asname=name):
            return [name or path.split(".")[0]]
    return []


def _own_names(function: ast.FunctionDef) -> set[str]:
    """Arguments, and names that the function's own statements assign: not those of what is defined in it."""
    names = {argument.arg for argument in _arguments(function)}
    open_nodes: list[ast.AST] = list(function.body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        scope = (
            ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
        )
        if not isinstance(node, scope):
            open_nodes += ast.iter_child_nodes(node)
    return names
