"""Shapes in signatures, for the reader: `Float[Array, "batch time"]` is an array of floats with these two axes.

They are written as jaxtyping has them, and nothing is checked.
"""

from typing import Any

from jax import Array


class Shaped:
    """Whatever stands in the brackets: an array."""

    def __class_getitem__(cls, axes: Any) -> type:
        return Array


Bool = Complex = Float = Inexact = Int = Integer = Num = Real = UInt = Shaped
