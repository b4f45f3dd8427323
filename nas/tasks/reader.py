"""Tokens in a file, memory-mapped: all that a contained process needs to know of a corpus."""

import mmap
import os
from pathlib import Path

import numpy as np


def read_tokens(file: Path | int, dtype: str = "uint8") -> np.ndarray:
    """A file, or an open descriptor of one, memory-mapped and read-only: `dtype` [tokens]."""
    if isinstance(file, int):
        with os.fdopen(os.dup(file), "rb") as opened:
            return np.memmap(opened, dtype=dtype, mode="r")
    return np.memmap(file, dtype=dtype, mode="r")


def let_go(tokens: np.ndarray) -> None:
    """Unmaps what was read of a memory-mapped file, until it is read again.

    A mapped page counts as memory of this process: without this a long training on a large file would be taken for one
    that needs more memory than it may have.
    """
    mapped = getattr(tokens, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)
