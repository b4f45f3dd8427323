"""What the tests of the box run inside it: well-behaved and hostile functions of `(arguments, send)`."""

import os
import signal
import subprocess
import sys
import time


def add(arguments, send):
    send({"step": 1})
    send({"step": 2})
    return arguments["a"] + arguments["b"]


def send_and_hang(arguments, send):
    send({"step": 1})
    time.sleep(1000)


def raise_error(arguments, send):
    raise ValueError("no such luck")


def leave(arguments, send):
    raise SystemExit(3)


def loop(arguments, send):
    while True:
        pass


def sleep_and_ignore_signals(arguments, send):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(1000)


def allocate(arguments, send):
    kept = []
    while True:
        kept.append(bytearray(50_000_000))


def die(arguments, send):
    os.kill(os.getpid(), signal.SIGKILL)


def abort(arguments, send):
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
    sys.stderr.flush()
    os.abort()


def leave_a_daemon(arguments, send):
    """Starts a process in a session of its own, whose parent is gone, and returns its id."""
    command = [sys.executable, "-c", "import os, time; os.setsid(); time.sleep(1000)"]
    return subprocess.Popen(command, start_new_session=True).pid


def fork_and_hang(arguments, send):
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(1000)
    send({"forked": True})
    time.sleep(1000)


def garble(arguments, send):
    """Writes what is no message to every pipe it can find."""
    for descriptor in range(3, 30):
        try:
            os.write(descriptor, b"}{ not a message\n")
        except OSError:
            continue
    time.sleep(1000)


def flood(arguments, send):
    """Sends a line without an end."""
    for descriptor in range(3, 30):
        try:
            while True:
                os.write(descriptor, b"x" * 65536)
        except OSError:
            continue


def environment(arguments, send):
    return dict(os.environ)


def count_to_the_stars(arguments, send):
    send({"result": 10**399})


def blame_the_machine(arguments, send):
    send({"crashed": {"cause": "infrastructure", "reason": "it was not me"}})


def crash_without_a_word(arguments, send):
    send({"crashed": 1})


def die_of_a_nameless_signal(arguments, send):
    os.kill(os.getpid(), 40)


def read(arguments, send):
    return {name: os.pread(descriptor, 100, 0).decode() for name, descriptor in arguments["files"].items()}


def report_twenty_thousand_times(arguments, send):
    for number in range(20_000):
        send({"rung": number})


def nest(arguments, send):
    """Sends what a JSON parser needs a deep stack for."""
    for descriptor in range(3, 30):
        try:
            os.write(descriptor, b"[" * 50_000 + b"\n")
        except OSError:
            continue
    time.sleep(1000)


def write_a_large_file(arguments, send):
    with open("large", "wb") as file:
        for _ in range(200):
            file.write(bytes(1_000_000))


def count(arguments, send):
    """Sends a number and the time, over and over."""
    for number in range(arguments["to"]):
        send({"number": number, "at": time.monotonic()})
