"""Programs that a cluster is reached by. They get lists of words: no shell reads what a person wrote."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence

from nas.errors import UserError
from nas.terminal import printable

_SECONDS = 120  # within which each has answered, or is not going to


def run(words: Sequence[str], purpose: str, text: str | None = None) -> str:
    """What a program answers.

    Args:
      words: the program and its arguments.
      purpose: what it is needed for, as the end of a sentence.
      text: for its standard input.

    Raises:
      UserError: if the program is not there, does not answer or refuses; with its own words.
    """
    try:
        done = subprocess.run(
            list(words), input=text or "", capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except FileNotFoundError:
        raise missing(words[0], purpose) from None
    except OSError as error:
        raise UserError(f"{words[0]} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} has not answered for {_SECONDS} seconds: is the cluster there?") from None
    if done.returncode:
        *_, last = ["", *(line for line in (done.stderr or done.stdout).splitlines() if line.strip())]
        said = printable(last) or f"exit code {done.returncode}"  # before its last line they repeat themselves
        raise UserError(f"{words[0]} refused: {said}")
    return done.stdout


def lines(words: Sequence[str], purpose: str) -> Iterator[str]:
    """What a program prints, line by line until it ends.

    Raises:
      UserError: as `run` does.
    """
    try:
        running = subprocess.Popen(
            list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise missing(words[0], purpose) from None
    assert running.stdout
    last = ""
    try:
        for last in running.stdout:
            yield last
        if running.wait():
            raise UserError(f"{words[0]} ended with exit code {running.returncode}: {printable(last)}")
    finally:
        with contextlib.suppress(OSError):
            running.kill()
        running.wait()


def missing(program: str, purpose: str) -> UserError:
    return UserError(f"there is no {program} here, which {purpose}: install it, or submit from where it is")
