"""`nas doctor`: what containment this machine gives, found out by trying to get out of it."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from nas.commands.containment import contained
from nas.sandbox import Box, Limits, SandboxError, paths, temporary_folder, tiers
from nas.sandbox.attempts import ATTEMPTS
from nas.settings import Settings
from nas.terminal import make_console

MIB = 2**20
_VARIABLE = "NAS_DOCTOR_SECRET_TOKEN"
# Limit -> (function of `nas.sandbox.attempts`, limits that it must run into, the cause it then ends with).
_BEYOND = {
    "use more memory than allowed": ("fill_memory", Limits(20, memory_bytes=300 * MIB), "memory"),
    "use it after its last word": ("fill_memory_after_the_result", Limits(20, memory_bytes=300 * MIB), "memory"),
    "the same, its pipe still open": ("fill_memory_with_the_pipe_open", Limits(20, memory_bytes=300 * MIB), "memory"),
    "run longer than allowed": ("run_on", Limits(1.5), "timeout"),
    "fill the disk": ("fill_the_disk", Limits(20, disk_bytes=100 * MIB), "killed"),
    "fill it with deleted files": ("fill_the_disk_with_deleted_files", Limits(20, disk_bytes=100 * MIB), "killed"),
    "print without end": ("fill_the_log", Limits(20), "killed"),
    "make files without end": ("make_many_files", Limits(20), "killed"),
}


@dataclass(frozen=True)
class Report:
    """Of one tier: why it does not work here, or what came of each attempt: "" where it got out."""

    tier: str
    missing: str | None
    met: dict[str, str]

    @property
    def holds(self) -> bool:
        return self.missing is None and all(self.met.values())


def doctor(settings: Settings) -> int:
    """Prints the report. Returns 0 if the containment asked for works and holds, else 1."""
    console = make_console()
    console.print(_machine(), soft_wrap=True, markup=False)
    reports = []
    for tier in tiers.TIERS:
        console.print(f"trying to get out of {tier} ...")
        reports.append(examine(tier))
    _show(console, reports)
    try:
        tier = contained(settings, console)
    except SandboxError as error:
        console.print(str(error), soft_wrap=True, markup=False)
        return 1
    report = next(report for report in reports if report.tier == tier)
    verdict = "it holds" if report.holds else f"{list(report.met.values()).count('')} attempts got out of it"
    console.print(f"sandbox={settings.sandbox.tier} uses {tier} here: {verdict}", soft_wrap=True)
    return 0 if report.holds or tier == "limits" else 1


def examine(tier: str) -> Report:
    """Tries every attempt under `tier`, and to go beyond its limits."""
    if reason := tiers.missing(tier):
        return Report(tier, reason, {})
    with temporary_folder("nas-doctor-") as folder, targets_in(folder / "person") as targets:
        root = folder / "box"
        box = Box(("nas.sandbox.attempts",), tier=tier, root=root)
        try:
            *_, last = box.run("nas.sandbox.attempts:try_all", targets, root / "attempts", Limits(60))
            met = last.get("result") or dict.fromkeys(ATTEMPTS, "")
            for name, (function, limits, cause) in _BEYOND.items():
                *_, last = box.run(f"nas.sandbox.attempts:{function}", {}, root / function, limits)
                crash = last.get("crashed", {})
                met[name] = crash.get("reason", "") if crash.get("cause") == cause else ""
        finally:
            box.close()
    return Report(tier, None, met)


@contextlib.contextmanager
def targets_in(folder: Path) -> Iterator[dict[str, Any]]:
    """A secret file, a process of the person's with a secret in its environment, and listeners of every kind."""
    folder.mkdir()
    (folder / "secret.txt").write_text("a secret of the person")
    abstract = f"\0nas-doctor-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        bystander = subprocess.Popen(["sleep", "600"], env={**os.environ, _VARIABLE: "a secret of the environment"})
        stack.callback(bystander.wait)
        stack.callback(bystander.kill)
        tcp, udp, unix, hidden, datagrams = (
            stack.enter_context(socket.socket(*kind))
            for kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_DGRAM),
            )
        )
        for server, address in ((tcp, ("127.0.0.1", 0)), (unix, str(folder / "socket")), (hidden, abstract)):
            server.bind(address)
            server.listen()
        udp.bind(("127.0.0.1", 0))
        datagrams.bind(str(folder / "datagrams"))
        yield {
            "secret": str(folder / "secret.txt"),
            "variable": _VARIABLE,
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(folder / "socket"),
            "abstract": abstract,
            "datagrams": str(folder / "datagrams"),
            "process": bystander.pid,
        }


def _machine() -> str:
    memory = psutil.virtual_memory()
    devices = ", ".join(map(str, paths.accelerators())) or "none"
    return (
        f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of memory free, "
        f"{shutil.disk_usage('.').free / 2**30:.1f} GiB of disk free; accelerators: {devices}"
    )


def _show(console: Console, reports: list[Report]) -> None:
    table = Table("a candidate tries to", *(report.tier for report in reports))
    for name in [*ATTEMPTS, *_BEYOND]:
        table.add_row(name, *(_cell(report, name) for report in reports))
    console.print(table)
    for report in reports:
        if report.missing:
            console.print(f"{report.tier} was skipped: {report.missing}", soft_wrap=True, markup=False)


def _cell(report: Report, name: str) -> str:
    if report.missing:
        return "-"
    return "[green]held[/]" if report.met[name] else "[bold red]gets out[/]"
