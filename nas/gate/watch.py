"""What a candidate could write to outside its own call, remembered and compared."""

import sys
import types
from typing import Any

import jax
import numpy as np

_DEPTH = 8
_DULL = frozenset({"__dict__", "__weakref__", "__doc__", "__annotations__", "__module__"})
_WATCHED = ("jax", "jax.numpy", "jax.nn", "jax.lax", "jax.random", "flax.nnx", "einops", "math", "functools", "numpy")


class Watch:
    """What a candidate could write to: its own module, and the modules that it can reach."""

    def __init__(self, module: dict[str, Any], graph: Any):
        self.module, self.graph = module, graph
        self.before = self._own()
        reached = [sys.modules[name] for name in _WATCHED if name in sys.modules]
        reached += [value for value in self.module.values() if isinstance(value, types.ModuleType)]
        self.reached = [(module, dict(vars(module))) for module in reached]

    def _own(self) -> dict[str, Any]:
        """The module's globals, and what the mixer holds that is no array: a list in it is shared by all calls."""
        owner = str(self.module.get("__name__"))
        attributes = [
            (name, _freeze(getattr(kept, "value", None), owner, _DEPTH)) for name, kept in self.graph.attributes
        ]
        return freeze(self.module) | {"TokenMixer()": tuple(attributes)}

    def changed(self) -> str | None:
        """What is no longer as it was, or None."""
        for module, before in self.reached:
            for name, value in before.items():
                if vars(module).get(name, None) is not value and not name.startswith("__"):
                    return f"`{module.__name__}.{name}`"
        after = self._own()
        if after != self.before:
            names = [name for name in after if after[name] != self.before.get(name)] or list(self.before)
            return f"the module's `{names[0]}`"
        return None


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
    if isinstance(value, types.FunctionType):
        if value.__globals__.get("__name__") != owner:
            return id(value)
        cells = tuple(filter(lambda held: held is not value, map(_held, value.__closure__ or ())))
        return (id(value), tuple(map(go, (cells, value.__defaults__, value.__kwdefaults__, value.__dict__))))
    kind = value if isinstance(value, type) else type(value)
    if getattr(kind, "__module__", None) == owner and hasattr(value, "__dict__"):
        return (id(value), tuple((name, go(item)) for name, item in vars(value).items() if name not in _DULL))
    return id(value)


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
