"""The gate's entry point in the box: `inspect` with JSON in and JSON out."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from nas.gate import inspect
from nas.gate.settings import GateSettings
from nas.types import Certificate


def boxed(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Sends {"started": check} before each check. Returns {"certificate": {...}} or {"rejected": {...}}."""
    verdict = inspect(
        arguments["source"], GateSettings(**arguments["settings"]), lambda check: send({"started": check})
    )
    return {"certificate" if isinstance(verdict, Certificate) else "rejected": asdict(verdict)}
