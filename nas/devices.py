"""One training on several devices: each has the whole model and an equal share of every batch.

Data parallelism by `jax.sharding`: programs are written for one device, arrays say where they lie, and XLA puts in the
sums of gradients. So what is computed is what one device computes, but for the order of those sums.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "data"


class DevicesError(Exception):
    """A training can't be spread as it was asked for. The message is one sentence."""


class Devices:
    """A mesh of one axis, over which batches are shared out.

    With one device nothing is said of where an array lies: programs are then what they are without this.

    Args:
      devices: JAX's; its default one if there are none.
    """

    def __init__(self, devices: Sequence[Any] = ()):
        self.count = max(1, len(devices))
        self._mesh = Mesh(np.array(devices), (_AXIS,)) if self.count > 1 else None

    @property
    def whole(self) -> NamedSharding | None:
        """Where an array lies that each device has all of."""
        return NamedSharding(self._mesh, PartitionSpec()) if self._mesh else None

    def shared(self, axis: int) -> NamedSharding | None:
        """Where an array lies that each device has its share of, along `axis`."""
        return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, _AXIS)) if self._mesh else None

    def placed(self, *inputs: NamedSharding | None, outputs: NamedSharding | None) -> dict[str, Any]:
        """Arguments of `jax.jit`: where a program's inputs are taken to, and where it leaves what it computes."""
        return {"in_shardings": inputs, "out_shardings": outputs} if self._mesh else {}


ONE = Devices()


def spread(most: int | None, batch: int) -> Devices:
    """The first `most` devices of this process, all of them for None.

    Raises:
      DevicesError: if there are fewer, or `batch` can't be shared out equally.
    """
    seen = jax.devices()
    count = len(seen) if most is None else most
    if count > len(seen):
        raise DevicesError(f"a trial has {count} accelerators and its process sees {len(seen)}")
    if batch % count:
        raise DevicesError(
            f"{batch} windows can't be shared out equally among {count} devices: make train.batch / train.accumulate "
            f"a multiple of {count}"
        )
    return Devices(seen[:count]) if count > 1 else ONE


def on_one(tree: Any) -> Any:
    """The same arrays, of which each device had all, as one device has them: nothing is copied."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)
