"""What NumPy and SciPy say of themselves: English prose, which is no part of the standard library's sources.

The second corpus of a verification: another kind of text than programs, and on every machine that has the engine.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.settings import CorpusSettings
from nas.tasks.corpora.source import CorpusError, Document, name_of, signature

_LIBRARIES = ("numpy", "scipy")
_SKIPPED_FOLDERS = {"tests", "__pycache__"}
_MIN_LETTERS = 200  # of a docstring: what is shorter is hardly prose


def identity(settings: CorpusSettings) -> Any:
    return [signature(*_sources(library)) for library in _LIBRARIES]


def documents(settings: CorpusSettings) -> Iterator[Document]:
    """The long docstrings of a module, each once, are a document."""
    for library in _LIBRARIES:
        root, paths = _sources(library)
        for path in paths:
            if text := _docstrings_of(path):
                yield Document(f"{library}/{name_of(root, path)}", text)


def _sources(library: str) -> tuple[Path, list[Path]]:
    found = importlib.util.find_spec(library)
    if found is None or not found.submodule_search_locations:
        raise CorpusError(f"corpus=docstrings needs {library} with its sources: use corpus=text path=FILE_OR_FOLDER")
    root = Path(found.submodule_search_locations[0])
    return root, sorted(p for p in root.rglob("*.py") if not _SKIPPED_FOLDERS & set(p.relative_to(root).parts))


def _docstrings_of(path: Path) -> bytes:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kinds)]
    texts = dict.fromkeys(text for node in nodes if (text := ast.get_docstring(node)))
    return "\n\n".join(text for text in texts if len(text) >= _MIN_LETTERS).encode("utf-8", "ignore")
