"""The console that people read, and that tests and log files capture."""

from rich.console import Console

_WIDTH_ELSEWHERE = 120  # columns where there is no terminal to tell: rich would break lines at 80


def make_console(stderr: bool = False) -> Console:
    """A console as wide as the terminal, if there is one."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=_WIDTH_ELSEWHERE)


def printable(text: str) -> str:
    """`text` on one line, without what would steer a terminal: candidates write their own error messages."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def visible(text: str) -> str:
    """`text` without what can't be seen, or would turn the reading direction; its lines and tabs stay."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
