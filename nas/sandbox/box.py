"""The engine's side of containment: one warm zygote, and one contained call at a time."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.sandbox import landlock, paths, tiers
from nas.sandbox.call import Call, Child, Message, crashed
from nas.sandbox.usage import Limits, folder_size, kill_tree, pid_outside
from nas.sandbox.wire import receive_message, send_message

_START_SECONDS = 120.0
_KEPT_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_HOME"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
    *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
)
_KEPT_PREFIXES = ("XLA_", "JAX_", "TPU_")
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
_MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # its name, and the one it had
_POOLED = 0.9  # of a share of a GPU's memory: the rest is for what a process has there outside XLA's pool


class Box:
    """Runs functions of the engine over candidate code in child processes of a warm, scrubbed zygote.

    Args:
      preload: modules that the zygote imports before its first fork.
      cpus: threads that a child's XLA may use.
      tier: what contains them: "auto", "bubblewrap", "landlock" or "limits" (see `nas.sandbox.tiers`).
      root: where the scratch folders of the calls will lie; found out from the first call if it is not given.
      gpus: what is reserved for its calls: a fraction is a share of one GPU's memory.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        cpus: int = 1,
        tier: str = "auto",
        root: Path | None = None,
        gpus: float = 0,
    ):
        self._preload = tuple(preload)
        self._cpus = cpus
        self._gpus = gpus
        self._asked_tier = tier
        self._root = root.resolve() if root else None
        self._visible = self._root  # what the zygote's namespace holds of it
        self._zygote: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._call: Call | None = None

    @property
    def tier(self) -> str:
        """The containment in use.

        Raises:
          SandboxError: if the one asked for does not work here.
        """
        return tiers.choose(self._asked_tier)

    @property
    def root(self) -> Path | None:
        """The folder in which the scratch folders of the calls lie, if one is known."""
        return self._root

    def start(self) -> None:
        """Starts the zygote, if it isn't there, without waiting until it is ready.

        Raises:
          SandboxError: if the containment asked for does not work here.
        """
        if self._zygote is not None and self._zygote.poll() is None:
            return
        # -P: from the very folders that the engine imports from, wherever this process happens to stand.
        words = [sys.executable, "-P", "-m", "nas.sandbox.zygote"]
        roots = os.pathsep.join(paths.import_roots(self._preload))
        if self._root:
            self._root.mkdir(parents=True, exist_ok=True)
        if self.tier == "bubblewrap":
            words = [*tiers.bubblewrap_command(self._preload, self._visible), *words]
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (until the next start)
        with theirs:
            self._zygote = subprocess.Popen(
                [*words, str(theirs.fileno()), self.tier, *self._preload],
                pass_fds=[theirs.fileno()],
                env={**scrubbed_environment(os.environ, self._cpus, self._gpus), "PYTHONPATH": roots},
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,  # a Ctrl-C at the terminal is the engine's to handle
            )
        self._control = ours
        self._ready = False

    def run(
        self,
        function: str,
        arguments: Mapping[str, Any],
        scratch: Path,
        limits: Limits,
        files: Mapping[str, Path] | None = None,
    ) -> Iterator[Message]:
        """Calls `function` ("module:name") with `(arguments, send)` in a contained child.

        Yields each message the child sends, the child paused until the next one is asked for. The last one is
        `{"result": ..., "peak_bytes": ...}` or `{"crashed": {"cause", "reason"}, "peak_bytes": ...}`. Closing the
        iterator kills the child and its descendants. What the child prints goes to `SCRATCH.log`, beside the folder.

        Args:
          arguments: JSON values. The child also finds "files" in them.
          scratch: the one folder that the child can write to, and read beside the libraries.
          files: name -> file that it may read, handed to it open: `arguments["files"][name]` is the descriptor.
        """
        try:
            scratch = _own_folder(scratch)
            self._make_visible(scratch)
            self.wait_until_ready()
            call = self._begin(function, arguments, scratch, limits, files or {})
        except (OSError, EOFError, tiers.SandboxError) as error:
            self.close()
            yield crashed("infrastructure", f"the containing process could not be started: {error}")
            return
        finished, self._call = False, call
        try:
            yield from call.messages()
            finished = True
        finally:
            self._call = None
            if not finished:
                call.kill()
            call.close()
            if not call.exited:  # the zygote did not answer: it may be damaged, the next call starts a fresh one
                self.close()

    def give_notice(self) -> bool:
        """Sends SIGTERM to the child of the call that runs, which may end in good order; whether there is one."""
        if call := self._call:
            call.give_notice()
        return call is not None

    def close(self) -> None:
        """Ends the zygote and whatever it runs. Any thread may, also while another one runs a call."""
        control, self._control = self._control, None
        zygote, self._zygote = self._zygote, None
        if control is not None:
            control.close()
        if zygote is not None:
            kill_tree(zygote.pid)
            zygote.wait()

    def _last_words(self) -> str:
        """What the zygote, or bubblewrap around it, said last; nothing of a candidate's."""
        if self._zygote is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._zygote.wait(1)
        lines = os.pread(self._stderr.fileno(), 1 << 16, 0).decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""

    def _make_visible(self, scratch: Path) -> None:
        """Sees to it that the zygote's namespace holds `scratch`, and no other's where only the namespace hides it."""
        if self.tier != "bubblewrap":
            return
        narrow = not landlock.version()
        seen = self._visible
        if seen is None or (seen != scratch if narrow else not scratch.is_relative_to(seen)):
            self.close()
            self._visible = scratch if narrow else scratch.parent

    def wait_until_ready(self) -> None:
        """Returns when the zygote has everything imported.

        Raises:
          SandboxError: if it does not come up.
        """
        self.start()
        if not self._ready:
            assert self._control is not None
            try:
                self._control.settimeout(_START_SECONDS)
                receive_message(self._control)
                self._control.settimeout(None)
            except (OSError, EOFError) as error:
                said = self._last_words()
                raise tiers.SandboxError(f"the containing process did not come up: {error}{said}") from error
            self._ready = True

    def _begin(
        self,
        function: str,
        arguments: Mapping[str, Any],
        scratch: Path,
        limits: Limits,
        files: Mapping[str, Path],
    ) -> Call:
        """Has the zygote fork a child. What must be known or open before the child runs is, first of all."""
        assert self._control is not None and self._zygote is not None
        log = scratch.parent / f"{scratch.name}.log"
        with contextlib.ExitStack() as handed, contextlib.ExitStack() as kept:

            def opened(path: Path, flags: int, until: contextlib.ExitStack) -> int:
                descriptor = os.open(path, flags, 0o644)
                until.callback(os.close, descriptor)
                return descriptor

            reader, writer = os.pipe()
            kept.callback(os.close, reader)
            handed.callback(os.close, writer)
            given = [writer, opened(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, handed)]
            given += [opened(path, os.O_RDONLY, handed) for path in files.values()]
            output, output_start = opened(log, os.O_RDONLY, kept), log.stat().st_size
            disk_start, _ = folder_size(scratch)
            socket.send_fds(self._control, [b"!"], given)
            request = {
                "function": function,
                "arguments": dict(arguments),
                "scratch": str(scratch),
                "limits": asdict(limits),
                "files": list(files),
            }
            send_message(self._control, request)
            pid, zygote = receive_message(self._control)["pid"], self._zygote.pid
            if self.tier == "bubblewrap":
                pid, zygote = pid_outside(zygote, pid), pid_outside(zygote, 1) or zygote
            kept.pop_all()
        return Call(Child(pid, zygote, reader, output, output_start, scratch, disk_start), self._control, limits)


def _own_folder(scratch: Path) -> Path:
    """The whole path of a scratch folder, made if it isn't there.

    Raises:
      NotADirectoryError: if it is a link: an earlier call could have pointed it at anything.
    """
    folder = scratch.parent.resolve() / scratch.name
    if folder.is_symlink():
        raise NotADirectoryError(f"the scratch folder {folder} is a link")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def scrubbed_environment(environment: Mapping[str, str], cpus: int, gpus: float = 0) -> dict[str, str]:
    """What a zygote, and so a candidate, sees of the environment: no keys, no tokens, `cpus` threads for XLA.

    Which accelerators its worker has is part of it, and with a fraction of a GPU how much of that one's memory.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if (name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES))
        and not any(word in name.upper() for word in _SECRET_WORDS)
    }
    # Nothing is taken ahead of need, and a trial that needs more than its share fails: not the one beside it.
    if 0 < gpus < 1 and not kept.keys() & set(_MEMORY_FRACTIONS):
        kept[_MEMORY_FRACTIONS[0]] = f"{_POOLED * gpus:.4f}"
    threads = {name: str(cpus) for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**kept, **threads, "PYTHONDONTWRITEBYTECODE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
