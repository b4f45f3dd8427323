"""What a traced program may hold: arithmetic on its arguments, and nothing that reaches outside it.

The static check refuses the names that lead to the host; this is the second line, which no spelling gets round: what
is not in the program is not run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend import core

from nas.gate.settings import Fault

# A primitive with one of these in its name talks to the host, to another device, or to code that is no XLA.
_OUTSIDE = ("callback", "infeed", "outfeed", "ffi", "custom_call", "print", "host", "pallas", "io_", "token", "rng_")
# Of arrays that are written in place: a program of a function has none.
_REFERENCES = frozenset(("new_ref", "ref_get", "ref_set", "get", "swap", "addupdate", "freeze", "run_state"))


def check(program: core.ClosedJaxpr, what: str) -> None:
    """Nothing but arithmetic: no effect, no callback, no transfer, no reference.

    Raises:
      Fault: of `purity`, naming the primitive.
    """
    for equation in equations(program.jaxpr):
        name = equation.primitive.name
        if any(part in name for part in _OUTSIDE) or name in _REFERENCES:
            raise Fault("purity", f"the {what} holds `{name}`: a mixer is arithmetic on its input, nothing outside it")
    if program.effects:
        effects = ", ".join(sorted(type(effect).__name__ for effect in program.effects))
        raise Fault("purity", f"the {what} has side effects ({effects}): keep and write nothing outside the call")


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those inside of others too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in inside(equation):
            yield from equations(inner)


def inside(equation: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    return [jaxpr for value in equation.params.values() for jaxpr in _jaxprs(value)]


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [jaxpr for item in value for jaxpr in _jaxprs(item)]
    return []


def constants(program: core.ClosedJaxpr) -> list[np.ndarray]:
    """The arrays that a program was traced with, each once: what a candidate made when it was imported."""
    found = {id(value): value for value in _constants(program)}
    return [np.asarray(value) for value in found.values() if isinstance(getattr(value, "dtype", None), np.dtype)]


def _constants(value: Any) -> Iterator[Any]:
    if isinstance(value, core.ClosedJaxpr):
        yield from value.consts
        value = value.jaxpr
    if isinstance(value, core.Jaxpr):
        for equation in value.eqns:
            yield from (atom.val for atom in equation.invars if isinstance(atom, core.Literal))
            for parameter in equation.params.values():
                yield from _constants(parameter)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _constants(item)
