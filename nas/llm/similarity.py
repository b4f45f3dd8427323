"""How much two candidates say the same, by the tokens of their sources.

Similarity is `2 m / (a + b)` for sources of a and b tokens whose longest common subsequence has m (the normalised Indel
similarity). Tokens leave out what a reader would not call a change: comments, docstrings, formatting, how imports are
written, annotations of functions, the names that a module gives to things of its own, and numbers. So 1.0 says: the
same but for names and constants.
"""

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping, Sequence

from rapidfuzz import process
from rapidfuzz.distance import Indel

from nas.parsing import parse
from nas.types import canonical_source

Tokens = tuple[str, ...]
_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.ENCODING, tokenize.ENDMARKER}
_NUMBER = "0"
_FIXED = {"TokenMixer", "init_state", "step"}  # by the contract
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def normal_tokens(source: str) -> Tokens:
    """The tokens of `source`, with names of its own renamed in order of appearance and every number the same.

    What cannot be taken apart like that is split at spaces: it is told from others, if coarsely.
    """
    try:
        tree = parse(canonical_source(source))
        names = _Names(tree)
        renamed = ast.unparse(ast.Module([names.visit(node) for node in tree.body if not _import(node)], []))
        return tuple(_tokens(renamed))
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return tuple(source.split())


def nearest(tokens: Sequence[str], others: Mapping[str, Tokens], at_least: float = 0.0) -> tuple[str, float] | None:
    """(id, similarity) of the most similar of `others`, the first of equals; None if none has `at_least` so much."""
    # The similarity of sources of a and b tokens is at most 2 min(a, b) / (a + b): far ones are not compared at all.
    near = {
        name: other
        for name, other in others.items()
        if 2 * min(len(tokens), len(other)) >= at_least * (len(tokens) + len(other))
    }
    found = process.extractOne(tokens, near, scorer=Indel.normalized_similarity, score_cutoff=at_least)
    return None if found is None else (found[2], found[1])


def _tokens(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NUMBER:
            yield _NUMBER
        elif token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            yield tokenize.tok_name[token.type]
        elif token.type not in _LAYOUT:
            yield token.string


def _import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


class _Names(ast.NodeTransformer):
    """Puts numbered names in the place of a module's own, and dotted paths in the place of imported ones.

    Names of a function (`v0`, `v1`, ...) are numbered by function, so that one more in a function leaves the others'
    tokens as they were; names of the module (`m0`) and fields and methods (`f0`) by module.
    """

    def __init__(self, tree: ast.Module):
        self.paths = dict(_imported(tree))
        self.fields = _numbered("f", _fields(tree))
        self.outer = _numbered("m", _bound_outside(tree))
        self.arguments = {name: _numbered("v", _bound_in(function)) for name, function in _outermost(tree)}
        self.local: Mapping[str, str] = {}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        known = self.local.get(node.id) or self.outer.get(node.id) or self.paths.get(node.id)
        return ast.Name(known or node.id, node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.local.get(node.arg, node.arg))

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        name = self.fields.get(node.attr, node.attr) if _of_self(node) else node.attr
        return ast.Attribute(self.visit(node.value), name, node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Arguments that are given by name to a function of the module's own are called as in that function."""
        callee = node.func.attr if isinstance(node.func, ast.Attribute) and _of_self(node.func) else None
        callee = node.func.id if isinstance(node.func, ast.Name) else callee
        names = self.arguments.get(callee or "", {})
        for keyword in node.keywords:
            keyword.arg = names.get(keyword.arg or "", keyword.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: _Function) -> ast.AST:
        node.returns = None
        if self.local:  # a function inside one: its names are numbered with those around it
            node.name = self.local.get(node.name, node.name)
            return self.generic_visit(node)
        self.local = _numbered("v", _bound_in(node))
        self.generic_visit(node)
        self.local = {}
        node.name = self.fields.get(node.name) or self.outer.get(node.name) or node.name
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.name = self.outer.get(node.name, node.name)
        return node


def _numbered(letter: str, names: Iterator[str]) -> dict[str, str]:
    return {name: f"{letter}{number}" for number, name in enumerate(dict.fromkeys(names))}


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)


def _of_self(node: ast.Attribute) -> bool:
    root: ast.AST = node
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    return isinstance(root, ast.Name) and root.id == "self"


def _outermost(tree: ast.Module) -> Iterator[tuple[str, _Function]]:
    """(name that it is called by, function): of the module, and of its classes; a class is called by its own name."""
    for node in tree.body:
        if isinstance(node, _Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, _Function):
                    yield (node.name if inner.name == "__init__" else inner.name), inner


def _fields(tree: ast.Module) -> Iterator[str]:
    """Methods and what is assigned to `self`, but for the names that the contract fixes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [inner.name for inner in node.body if isinstance(inner, _Function)]
            yield from (name for name in methods if name not in _FIXED and not name.startswith("__"))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _of_self(node):
            yield node.attr


def _bound_outside(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, _Function | ast.ClassDef):
            yield from [statement.name] if statement.name not in _FIXED else []
        elif not _import(statement):
            yield from (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _bound_in(function: _Function) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, _Function) and node is not function:
            yield node.name
