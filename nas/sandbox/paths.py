"""What a contained process may read: the interpreter, libraries, the packages it imports, facts on the machine."""

import glob
import importlib.util
import os
import site
import sys
from collections.abc import Iterable
from pathlib import Path

_SYSTEM = (
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
)
_ACCELERATORS = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/kfd", "/dev/accel*", "/dev/vfio/*")
_WITH_KFD = ("/dev/dri/*",)  # by itself it is any desktop's graphics
HARMLESS_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom")  # /dev/zero is shared memory to whoever maps it


def readable_paths(modules: Iterable[str]) -> list[Path]:
    """Files and folders outside `/proc` and `/dev`: the libraries, and the packages of `modules`.

    A package is its own folder, never the folder it lies in: beside it there may be a person's results.
    """
    interpreter = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    sources = [origin for module in ("nas", *modules) for origin in _origins(module.split(".")[0])]
    system = [*_SYSTEM, "/sys/devices/system/cpu"]
    if accelerators():
        system += ["/sys", "/opt/rocm", "/run/nvidia", "/etc/vulkan", "/etc/OpenCL"]
    if site.ENABLE_USER_SITE:
        interpreter.append(site.getusersitepackages())
    there = [path for path in (*system, *interpreter, *sources) if os.path.exists(path)]
    found = {Path(path).absolute() for path in there} | {Path(path).resolve() for path in there}  # links and their ends
    return sorted(path for path in found if path != Path("/"))


def import_roots(modules: Iterable[str]) -> list[str]:
    """The folders from which the engine and `modules` are imported here, outside the interpreter's own."""
    own = (sys.prefix, sys.base_prefix)
    sources = [origin for module in ("nas", *modules) for origin in _origins(module.split(".")[0])]
    roots = (os.path.dirname(os.path.abspath(source)) for source in sources)
    return list(dict.fromkeys(root for root in roots if not root.startswith(tuple(f"{prefix}/lib" for prefix in own))))


def facts_in_proc() -> list[Path]:
    """What a numerical library asks of the machine and of its own process; nothing of any other."""
    of_the_machine = ("cpuinfo", "meminfo", "stat", "sys/vm/overcommit_memory", "driver/nvidia", "devices")
    return [Path(f"/proc/{os.getpid()}"), *(Path("/proc", name) for name in of_the_machine)]


def accelerators() -> list[Path]:
    """Device nodes of GPUs and TPUs."""
    patterns = _ACCELERATORS + (_WITH_KFD if os.path.exists("/dev/kfd") else ())
    return sorted(Path(path) for pattern in patterns for path in glob.glob(pattern))


def _origins(package: str) -> list[str]:
    """The folder of a package, or the file of a module."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return list(spec.submodule_search_locations)
    return [spec.origin] if spec.origin and os.path.exists(spec.origin) else []
