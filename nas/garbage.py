"""How often a driver's process looks for garbage. Standard library only."""

import gc

_YOUNGEST = 100_000  # objects made since; Python's own 700 are less than the syntax tree of one candidate
_MIDDLE = 50


def collect_seldom() -> None:
    """Has this process look for garbage more seldom.

    Each proposal makes syntax trees of tens of thousands of objects, few of which are garbage, and has the collector
    look through a memory that grows with the search: that took half of a driver's time.
    """
    gc.set_threshold(_YOUNGEST, _MIDDLE)
