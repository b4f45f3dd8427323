"""What a candidate could write to outside its own call, remembered and compared."""

import collections
import functools
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from nas.gate.settings import Fault

_MOST = 100_000  # objects that are looked at
_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_FUNCTIONS = (types.FunctionType, functools.partial, types.MethodType)
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
        frozen = _Freezer(owner)
        attributes = [(name, frozen(getattr(kept, "value", None))) for name, kept in self.graph.attributes]
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
    """A module's names -> values that change when what they hold does.

    Raises:
      Fault: if it holds what changes whenever it is used, or more than can be looked through.
    """
    frozen = _Freezer(str(module.get("__name__")))
    return {name: frozen(value) for name, value in module.items() if not name.startswith("__")}


class _Freezer:
    """Looks at each object once, through whatever holds it.

    Args:
      owner: name of the module whose objects are looked into; of others, only what they hold of it.
    """

    def __init__(self, owner: str):
        self.owner = owner
        self.seen: dict[int, Any] = {}  # id -> the object: kept, so that no other gets its id meanwhile

    def __call__(self, value: Any, foreign: bool = False) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return (kind.__name__, repr(value))
        if id(value) in self.seen or isinstance(value, types.ModuleType):
            return 0 if kind is tuple else id(value)  # a tuple may be made anew each time it is asked for
        self.seen[id(value)] = value
        if len(self.seen) > _MOST:
            raise Fault("purity", "the module keeps more objects than can be looked through")
        try:
            return (0 if kind is tuple else id(value), self._content(value, foreign))
        except RecursionError:
            raise Fault("purity", "the module keeps objects that are nested too deep to look through") from None

    def _all(self, values: Iterable[Any], foreign: bool = False) -> tuple[Any, ...]:
        return tuple([self(value, foreign) for value in values])

    def _content(self, value: Any, foreign: bool) -> Any:
        if isinstance(value, jax.core.Tracer):
            return "tracer"
        if isinstance(value, np.ndarray | jax.Array):
            if value.size > 1 << 20 or jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                return None  # jax.Array does not change; a NumPy array this large would be slow to read
            return np.asarray(value).tobytes()
        if isinstance(value, Iterator) and not foreign:
            raise Fault("purity", f"the module keeps a {type(value).__name__}, which moves with every use")
        if isinstance(value, functools._lru_cache_wrapper) and not foreign:
            raise Fault("purity", "the module keeps a cache, which remembers calls: keep no state between calls")
        return (self._items(value, foreign), self._held(value, foreign), self._attributes(value, foreign))

    def _items(self, value: Any, foreign: bool) -> Any:
        """What is in a container, of whatever class."""
        if isinstance(value, str | bytes | bytearray | int | float | complex):
            return bytes(value) if isinstance(value, bytearray) else None
        if isinstance(value, Mapping):
            return self._all([part for pair in list(value.items()) for part in pair], foreign)
        if isinstance(value, list | tuple | collections.deque):
            return self._all(list(value), foreign)
        if isinstance(value, set | frozenset):
            return self._all(sorted(value, key=id), foreign)
        return None

    def _held(self, value: Any, foreign: bool) -> Any:
        """What a function, or what stands for one, has at hand."""
        if isinstance(value, types.FunctionType):
            own = value.__globals__.get("__name__") == self.owner
            parts = [_content_of(cell) for cell in value.__closure__ or ()]
            if own:
                parts += [value.__defaults__, value.__kwdefaults__, value.__dict__]
            return self._all(parts, not own)
        if isinstance(value, functools.partial):
            return self._all([value.func, value.args, value.keywords], foreign)
        if isinstance(value, types.MethodType):
            return self._all([value.__func__, value.__self__], foreign)
        if isinstance(value, property):
            return self._all([value.fget, value.fset, value.fdel], foreign)
        if isinstance(value, staticmethod | classmethod):
            return self._all([value.__func__], foreign)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):  # `box.append`
            bound = value.__self__
            return None if bound is None or isinstance(bound, type) else self._all([bound], foreign)
        if isinstance(value, jax.custom_vjp | jax.custom_jvp):
            return self._all([getattr(value, name, None) for name in ("fun", "fwd", "bwd", "jvp")], foreign)
        if not isinstance(value, type) and isinstance(wrapped := getattr(value, "__wrapped__", None), _FUNCTIONS):
            return self._all([wrapped], foreign)  # jax.jit and its like
        return None

    def _attributes(self, value: Any, foreign: bool) -> Any:
        """Of the owner's classes and their objects, of Flax's objects, and of what is derived from a built-in class."""
        kind = value if isinstance(value, type) else type(value)
        own = getattr(kind, "__module__", None) == self.owner
        if not (own or isinstance(value, nnx.Variable | nnx.Module)):
            return None
        named = [(name, item) for name, item in getattr(value, "__dict__", {}).items() if name not in _DULL]
        if not isinstance(value, type):
            slots = [name for base in kind.__mro__ for name in _slots(base)]
            named += [(name, getattr(value, name)) for name in slots if hasattr(value, name)]
        return [(name, self(item, foreign)) for name, item in named]


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
