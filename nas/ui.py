"""The MLflow server over a search's store, in the foreground. It has no login: whoever reaches the port may edit runs.

One worker and no job execution: 490 MB of memory instead of the 2.1 GB of MLflow's defaults.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_SECONDS = 10.0
_VIEW = "#/experiments?workflowType=machine_learning"  # MLflow's other view, of agents, hides runs behind traces


def serve(store_uri: str, artifact_root: str | Path, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serves the store until Ctrl-C (or SIGTERM). Returns the exit code: 0 after a clean stop, 1 after an error.

    Sets signal handlers while it runs, so call it from the main thread.

    Args:
      store_uri: e.g. "sqlite:////absolute/path/mlflow.db".
      artifact_root: where the artifacts of clients that log through this server are kept.
      host: address to listen on; anything but loopback lets others in, and there is no login.
        MLflow then takes requests to this machine's name or private addresses only as MLFLOW_SERVER_ALLOWED_HOSTS says.
      port: TCP port.
    """
    trouble = _missing_store(store_uri) or _taken_port(host, port)
    if trouble:
        print(trouble, file=sys.stderr)
        return 1
    if host not in _LOOPBACK:
        print(f"Whoever reaches port {port} of this machine can change and delete runs: there is no login.")
    address = f"[{host}]" if ":" in host else host
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(artifact_root)),
        *("--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store_uri,  # not in the command, where everybody could read its password
        "MLFLOW_REGISTRY_STORE_URI": store_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PYTHONWARNINGS": "ignore",
    }
    previous = {number: signal.signal(number, _interrupt) for number in _STOPS}
    # A session of its own: Ctrl-C reaches this process alone, which then ends the server and its workers together.
    server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=2, start_new_session=True)
    try:
        if not _wait_until_up(server, f"http://{'127.0.0.1' if host == '0.0.0.0' else address}:{port}/health"):
            print(
                f"The MLflow server ended with exit code {server.returncode} before it answered; "
                "its own message is above.",
                file=sys.stderr,
            )
            return 1
        print(f"MLflow: http://{address}:{port}/{_VIEW} (Ctrl-C stops it)", flush=True)
        code = server.wait()
        print(f"The MLflow server ended by itself with exit code {code}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for number in _STOPS:  # a second Ctrl-C would leave the server behind
            signal.signal(number, signal.SIG_IGN)
        _stop(server)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _missing_store(uri: str) -> str | None:
    if uri.startswith("sqlite:///") and not Path(path := uri.removeprefix("sqlite:///")).is_file():
        return f"There is no MLflow store at {path}: run a search first, or name another store."
    return None


def _taken_port(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
            probe.bind(address)
    except (OSError, OverflowError) as error:
        return f"Port {port} of {host} cannot be used ({error}): choose another with --port N"
    return None


def _wait_until_up(server: subprocess.Popen[bytes], url: str) -> bool:
    """Whether the server answers; False once it has ended."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows nothing of this machine
    while server.poll() is None:
        try:
            with direct.open(url, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and every process it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
