"""The gate's entry point in the box: `inspect` with JSON in and JSON out."""

import gc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax

from nas.gate import inspect
from nas.gate.settings import GateSettings
from nas.types import Certificate


def boxed(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The gate on the CPU, whatever the machine has: an accelerator is for training.

    Sends {"started": check} before each check. Returns {"certificate": {...}} or {"rejected": {...}}.
    """
    jax.config.update("jax_platforms", "cpu")
    gc.disable()  # a twelfth of a verdict, and this process ends with it
    verdict = inspect(
        arguments["source"], GateSettings(**arguments["settings"]), lambda check: send({"started": check})
    )
    return {"certificate" if isinstance(verdict, Certificate) else "rejected": asdict(verdict)}
