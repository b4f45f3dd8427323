"""Normalisation of queries and keys, after the feature map."""

# mypy: ignore-errors
from search_spaces.linear_attention import ops


class Off:
    """Queries and keys of any length: a long key can write more than a short one."""

    gives = ("free keys",)


class L2:
    """Unit queries and keys: writing stays stable, and erasing possible, whatever the scale of the keys (DeltaNet)."""

    gives = ("unit keys",)

    def normalize(self, q, k):
        return ops.l2_normalize(q), ops.l2_normalize(k)


class Rms:
    """RMS-normalised queries and keys: every channel keeps scale one, as QK-norm does in attention."""

    gives = ("free keys",)

    def normalize(self, q, k):
        return ops.rms_norm(q), ops.rms_norm(k)


class UnitKeys:
    """Unit keys alone: every write is equally strong, and a query may still be sharp or flat."""

    gives = ("unit keys",)

    def normalize(self, q, k):
        return q, ops.l2_normalize(k)
