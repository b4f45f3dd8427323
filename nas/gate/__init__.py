"""Whether a candidate may be trained: seven checks, cheap to dear, each reporting what it saw in words.

    verdict = inspect(source, GateSettings(width=128, heads=4, train_time=256, allowed_imports=(...)), started=print)

`verdict` is a `Certificate`, or `Rejected(check, reason)`. Call `inspect` in a contained process only: it runs the
candidate. `flops(fn, *avals)` counts any JAX function. Importing this package imports no JAX; using either does.

    static     the source: imports, names, writes
    contract   shapes, dtypes, finite values and gradients, numbers in parameters alone; some mixing of time
    causality  no output sees a later input, at any position of the shape that is trained
    purity     nothing kept between calls, nothing shared within a batch, nothing outside touched
    parity     step over time = __call__
    cost       growth in time, FLOPs per token
    novelty    not a function that was tried before
"""

from typing import TYPE_CHECKING, Any

from nas.gate.settings import CHECKS, GateSettings

if TYPE_CHECKING:
    from nas.gate.certificate import inspect
    from nas.gate.cost import flops

__all__ = ["CHECKS", "GateSettings", "flops", "inspect"]


def __getattr__(name: str) -> Any:
    # The driver makes GateSettings and must not import JAX for it.
    if name == "flops":
        from nas.gate.cost import flops

        return flops
    if name == "inspect":
        from nas.gate.certificate import inspect

        return inspect
    raise AttributeError(name)
