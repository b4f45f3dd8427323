"""What a candidate could write to outside its own call, remembered and compared."""

import functools
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from nas.gate.settings import Fault

_DEPTH = 8
_DULL = frozenset({"__dict__", "__weakref__", "__doc__", "__annotations__", "__module__"})
_WATCHED = ("jax", "jax.numpy", "jax.nn", "jax.lax", "jax.random", "jax.scipy", "jax.tree", "jax.tree_util")
_STANDARD = ("builtins", "dataclasses", "einops", "functools", "math", "numpy", "optax", "sys", "typing")
_OURS = ("nas", "search_spaces")
_BOOKKEEPING = frozenset({"__warningregistry__", "last_traceback", "last_value", "last_type", "last_exc"})
_CLOSED = frozenset({"builtins"})  # nothing is ever added to them
_ABSENT = object()


class Watch:
    """What a candidate could write to: the process as it was before it was loaded, and its own module after."""

    def __init__(self) -> None:
        reached = [module for name, module in list(sys.modules.items()) if _is_watched(name) and module is not None]
        self.reached = [(module, dict(vars(module))) for module in reached]
        classes = {id(kind): kind for module, names in self.reached for kind in names.values() if _is_ours(kind)}
        self.classes = [(kind, dict(vars(kind))) for kind in classes.values()]
        self.process = _process()
        self.modules = dict(sys.modules)
        self.module: dict[str, Any] | None = None
        self.graph: Any = None
        self.before: dict[str, Any] = {}

    def add(self, module: dict[str, Any], graph: Any) -> None:
        """The candidate's module, and the structure of a mixer: from now on they do not change either."""
        self.module, self.graph = module, graph
        self.before = self._own()

    def _own(self) -> dict[str, Any]:
        """The module's globals, and what the mixer holds that is no array: a list in it is shared by all calls."""
        if self.module is None:
            return {}
        owner = str(self.module.get("__name__"))
        attributes = [
            (name, _freeze(getattr(kept, "value", None), owner, _DEPTH)) for name, kept in self.graph.attributes
        ]
        return freeze(self.module) | {"TokenMixer()": tuple(attributes)}

    def changed(self) -> str | None:
        """What is no longer as it was, or None."""
        for module, before in self.reached:
            if (name := _difference(vars(module), before, closed=module.__name__ in _CLOSED)) is not None:
                return f"`{module.__name__}.{name}`"
        for kind, before in self.classes:
            if (name := _difference(vars(kind), before)) is not None:
                return f"`{kind.__module__}.{kind.__name__}.{name}`"
        for what, value in _process().items():
            if value != self.process[what]:
                return f"`{what}`"
        if (name := self._new_module()) is not None:
            return f"`sys.modules['{name}']`"
        after = self._own()
        if after != self.before:
            names = [name for name in after if after[name] != self.before.get(name)] or list(self.before)
            return f"the module's `{names[0]}`"
        return None

    def _new_module(self) -> str | None:
        """A module that was replaced, taken out, or put there and not imported: libraries import more of theirs."""
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                return name
        new = [(name, module) for name, module in list(sys.modules.items()) if name not in self.modules]
        return next((name for name, module in new if getattr(module, "__spec__", None) is None), None)


def _is_watched(name: str) -> bool:
    return name in (*_WATCHED, *_STANDARD) or name.split(".")[0] in _OURS or name.startswith("flax.nnx.")


def _is_ours(value: Any) -> bool:
    """A class of the engine or of Flax: harness and candidate are both built from them."""
    return isinstance(value, type) and value.__module__.split(".")[0] in (*_OURS, "flax")


def _difference(now: Any, before: dict[str, Any], closed: bool = False) -> str | None:
    for name, value in before.items():
        if now.get(name, _ABSENT) is not value and name not in _BOOKKEEPING:
            return name
    return next((name for name in list(now) if name not in before), None) if closed else None


def _process() -> dict[str, Any]:
    return {"os.environ": dict(os.environ), "jax.config": dict(jax.config.values), "sys.path": list(sys.path)}


def freeze(module: dict[str, Any]) -> dict[str, Any]:
    """A module's names -> values that change when what they hold does."""
    owner = str(module.get("__name__"))
    return {name: _freeze(value, owner, _DEPTH) for name, value in module.items() if not name.startswith("__")}


def _freeze(value: Any, owner: str, depth: int) -> Any:
    if isinstance(value, str | bytes | int | float | complex | bool | type(None)):
        return (type(value).__name__, repr(value))
    if depth == 0 or isinstance(value, types.ModuleType):
        return id(value)
    if isinstance(value, jax.core.Tracer):
        return ("tracer", id(value))
    if isinstance(value, np.ndarray | jax.Array):
        if value.size > 1 << 20 or jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return id(value)  # jax.Array does not change; a NumPy array this large would be slow to read
        return (id(value), np.asarray(value).tobytes())

    def go(item: Any) -> Any:
        return _freeze(item, owner, depth - 1)

    if isinstance(value, dict):
        return (id(value), tuple((repr(key)[:80], go(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (id(value) if isinstance(value, list) else 0, tuple(map(go, value)))
    if isinstance(value, set | frozenset):
        return (id(value), len(value), tuple(sorted(repr(item)[:80] for item in value)))
    if isinstance(value, Iterator):
        raise Fault("purity", f"the module keeps a {type(value).__name__}, which moves with every use")
    if isinstance(value, functools._lru_cache_wrapper):
        raise Fault("purity", "the module keeps a cache, which remembers calls: keep no state between calls")
    if isinstance(value, bytearray):
        return (id(value), bytes(value))
    if isinstance(value, functools.partial):
        return (id(value), go(value.func), go(value.args), go(value.keywords))
    if isinstance(value, types.MethodType):
        return (go(value.__func__), go(value.__self__))
    if isinstance(value, nnx.Variable | nnx.Module):
        return (id(value), tuple((name, go(item)) for name, item in vars(value).items()))
    if isinstance(value, types.FunctionType):
        if value.__globals__.get("__name__") != owner:
            return id(value)
        cells = tuple(filter(lambda held: held is not value, map(_held, value.__closure__ or ())))
        return (id(value), tuple(map(go, (cells, value.__defaults__, value.__kwdefaults__, value.__dict__))))
    if not isinstance(value, type) and isinstance(wrapped := getattr(value, "__wrapped__", None), types.FunctionType):
        return (id(value), go(wrapped))  # jax.jit and its like
    kind = value if isinstance(value, type) else type(value)
    if getattr(kind, "__module__", None) == owner and hasattr(value, "__dict__"):
        return (id(value), tuple((name, go(item)) for name, item in vars(value).items() if name not in _DULL))
    return id(value)


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
