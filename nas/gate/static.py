"""What can be seen without running anything: a filter of the source, not a wall (the wall is the box).

Every dotted name is resolved to the module it was imported from, so that `from jax import pure_callback`,
`import jax as j; j.pure_callback` and `call = jax.pure_callback` are one and the same.
"""

import ast
import importlib
import types
from collections.abc import Iterable, Iterator
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
# Built-ins whose names people also give to their own variables: those are theirs to use.
FORBIDDEN_BUILTINS = frozenset(("vars", "dir", "input", "exit", "quit", "help"))
# Anywhere, whatever they hang on: the ways out of a traced function and into the interpreter.
FORBIDDEN_ATTRIBUTES = _words(
    """
    pure_callback io_callback debug_callback host_callback builtins importlib subprocess ctypes gi_frame
    gi_code cr_frame ag_frame tb_frame co_code func_globals f_globals f_locals f_builtins f_back f_code
    """
)
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
    "dataclasses.make_dataclass",
    "typing.get_type_hints",
    "typing.ForwardRef",
    "flax.nnx.jit",
    "flax.nnx.display",
    "flax.nnx.tabulate",
    "flax.nnx.bridge",
)
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
        self.bound: set[str] = set()
        self.paths: dict[str, str] = {}  # local name -> dotted path of what was imported

    def read(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
        for node in ast.walk(tree):  # nn = jax.nn
            if isinstance(node, ast.Assign) and (path := self._path(node.value)):
                self.paths |= {target.id: path for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                self.bound.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.bound.add(node.id)
        self.visit(tree)

    def _refuse(self, node: ast.AST, reason: str) -> Fault:
        return Fault("static", f"{reason} at line {getattr(node, 'lineno', '?')}")

    # Imports and what hangs on them.

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise self._refuse(node, "a relative import is not allowed")
            for alias in node.names:
                path = f"{node.module}.{alias.name}"
                if alias.name == "*" or not (node.module in self.allowed or path in self.allowed):
                    raise self._refuse(node, f"`from {node.module} import {alias.name}` is not allowed")
                self._check_path(path, node)
                self.paths[alias.asname or alias.name] = path
            return
        for alias in node.names:
            if alias.name not in self.allowed:
                raise self._refuse(node, f"`import {alias.name}` is not allowed")
            self.paths[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )

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
        for name in {path: 0, self._canonical(path): 0}:
            self._check_name(name, node)

    def _canonical(self, path: str) -> str:
        """`flax.nnx.nn.linear.jax.debug` -> "jax.debug": what is reached through another module's imports."""
        module = max((name for name in self.allowed if within(path, name)), key=len, default=None)
        if module is None:
            return path
        try:
            reached: Any = importlib.import_module(module)
        except ImportError:
            return path
        name, rest = module, path.split(".")[module.count(".") + 1 :]
        while rest and isinstance(reached := getattr(reached, rest[0], None), types.ModuleType):
            name, rest = reached.__name__, rest[1:]
        return ".".join([name, *rest])

    def _check_name(self, path: str, node: ast.AST) -> None:
        parts = path.split(".")
        if any(part.startswith("_") for part in parts):
            raise self._refuse(node, f"`{path}` is private")
        if forbidden := FORBIDDEN_ATTRIBUTES.intersection(parts):
            raise self._refuse(node, f"`{path}` is not allowed ({', '.join(sorted(forbidden))})")
        if parts[0] == "jax" and len(parts) > 1 and parts[1] not in JAX_ATTRIBUTES:
            raise self._refuse(node, f"`{path}` is not allowed: a mixer uses no jax.{parts[1]}")
        if any(path == refused or path.startswith(refused + ".") for refused in FORBIDDEN_PATHS):
            raise self._refuse(node, f"`{path}` is not allowed")
        if not any(within(path, module) or within(module, path) for module in self.allowed):
            raise self._refuse(node, f"`{path}` is not in an allowed module")

    def _is_module(self, path: str) -> bool:
        return path in self.allowed or any(module.startswith(path + ".") for module in self.allowed)

    # Nodes.

    def visit_Name(self, node: ast.Name) -> None:
        builtin = node.id in FORBIDDEN_BUILTINS and node.id not in self.bound
        if builtin or node.id in FORBIDDEN_NAMES or _dunder(node.id):
            raise self._refuse(node, f"the name `{node.id}` is not allowed")
        if isinstance(node.ctx, ast.Load) and (path := self.paths.get(node.id)) and self._is_module(path):
            raise self._refuse(node, f"the module `{path}` is used as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if path := self._path(node):
            self._check_path(path, node)
            if self._is_module(path):
                raise self._refuse(node, f"the module `{path}` is used as a value")
            return
        if _dunder(node.attr) or node.attr in FORBIDDEN_ATTRIBUTES:
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
        match node.func:
            case ast.Name(id="getattr" | "hasattr"):
                if len(node.args) < 2 or not _plain_name(node.args[1]):
                    raise self._refuse(node, "getattr and hasattr need a plain name in quotes")
            case ast.Name(id="setattr"):
                own = len(node.args) == 3 and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
                if not own or not _plain_name(node.args[1]):
                    raise self._refuse(node, "setattr is allowed on `self` with a plain name only")
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"):
                for argument in [*node.args, *node.keywords]:
                    self.visit(argument)
                return
            case _:
                self.visit(node.func)
        for argument in [*node.args, *node.keywords]:
            self.visit(argument)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if _dunder(node.name) and node.name not in DEFINABLE:
            raise self._refuse(node, f"a definition of `{node.name}` is not allowed")
        self.generic_visit(node)

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


def _plain_name(node: ast.AST) -> bool:
    """A name in quotes, or an f-string, whose written parts hold neither a dunder nor a forbidden name."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    for part in parts:
        if isinstance(part, ast.FormattedValue):
            continue
        if not (isinstance(part, ast.Constant) and isinstance(part.value, str)):
            return False
        if "__" in part.value or part.value in FORBIDDEN_ATTRIBUTES:
            return False
    return not isinstance(node, ast.JoinedStr) or isinstance(parts[0], ast.Constant)
