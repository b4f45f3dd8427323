"""From a candidate's source to its class. Runs what it is given: call it only inside the box."""

import linecache
import types
from typing import Any

from nas.types import source_id


class ContractError(Exception):
    """The source is not a candidate: the message says what is missing."""


def load_mixer(source: str) -> Any:
    """Executes a candidate's source and returns its `TokenMixer` class.

    Raises:
      ContractError: if it defines no class `TokenMixer`.
      Exception: whatever the candidate's module body raises.
    """
    filename = f"candidate_{source_id(source)}.py"
    module = types.ModuleType(filename.removesuffix(".py"))
    # Without this a traceback shows no line of the candidate: linecache is where traceback looks first.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), module.__dict__)
    mixer = module.__dict__.get("TokenMixer")
    if not isinstance(mixer, type):
        raise ContractError("the module defines no class `TokenMixer`")
    return mixer
