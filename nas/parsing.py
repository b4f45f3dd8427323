"""Python source to its syntax tree, in one thread at a time. Standard library only.

CPython 3.11 counts how deep a conversion is nested by interpreter, not by thread. Two at once, with a switch of threads
between, can end in `SystemError: AST constructor recursion depth mismatch`; 3.12 counts by thread.
"""

import ast
import threading

_LOCK = threading.Lock()


def parse(source: str) -> ast.Module:
    """`ast.parse`, and what it raises: SyntaxError, ValueError, RecursionError, MemoryError."""
    with _LOCK:
        return ast.parse(source)
