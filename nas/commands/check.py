"""`nas check FILE`: the gate on one candidate file."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from nas.commands.containment import contained
from nas.errors import UserError
from nas.sandbox import Box, temporary_folder
from nas.settings import Settings
from nas.space import load_space
from nas.terminal import make_console, printable
from nas.trial import gate_arguments, memory_bytes, run_gate

_PRELOAD = ("jax", "flax.nnx", "einops", "nas.gate.boxed")


def check(file: Path, settings: Settings, as_json: bool) -> int:
    """Exit code 0 with the certificate, or 1 with the failed check and the reason.

    Raises:
      UserError: if the file can't be read.
    """
    source, console = read_candidate(file), make_console(stderr=as_json)
    contained(settings, console)
    verdict = verdict_on(source, settings)
    if as_json:
        print(json.dumps(verdict))
    else:
        _show(verdict, console)
    return 0 if verdict["ok"] else 1


def read_candidate(file: Path) -> str:
    """The source in a file; what is not UTF-8 in it is for the gate to reject."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error


def verdict_on(source: str, settings: Settings) -> dict[str, Any]:
    """{"ok", "failed", "reason", "checks", "certificate"}: None for what does not apply."""
    space = load_space(settings.search_space.module)
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    with temporary_folder("nas-check-") as folder:
        box = Box((*_PRELOAD, *sorted(space.allowed_imports)), tier=settings.sandbox.tier, root=folder)
        try:
            memory = memory_bytes(settings)
            result = run_gate(source, gate, box, folder / "gate", settings.budget.gate_seconds, memory)
        finally:
            box.close()
    if "certificate" in result:
        certificate = result["certificate"]
        return {"ok": True, "failed": None, "reason": None, "checks": certificate["checks"], "certificate": certificate}
    outcome = result["outcome"]
    failed = outcome["check"] if outcome["kind"] == "rejected" else outcome["cause"]
    return {
        "ok": False,
        "failed": failed,
        "reason": outcome["reason"],
        "checks": dict.fromkeys(result.get("passed", ()), "passed") | {failed: f"failed: {outcome['reason']}"},
        "certificate": None,
    }


def _show(verdict: dict[str, Any], console: Console) -> None:
    for name, seen in verdict["checks"].items():
        mark = "[red]no[/]" if name == verdict["failed"] else "[green]ok[/]"
        console.print(f"{mark} {name:<10} {escape(printable(str(seen)))}", soft_wrap=True)
    if certificate := verdict["certificate"]:
        console.print(
            f"{certificate['params']:,} parameters, {certificate['flops_per_token']:,.0f} FLOPs per token, "
            f"state of {certificate['state_bytes'] or 0:,} bytes, fingerprint {certificate['fingerprint']}",
            soft_wrap=True,
        )
