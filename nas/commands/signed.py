"""The options with which a person signs a decision: --by NAME --why TEXT."""

from collections.abc import Sequence

_OPTIONS = ("--by", "--why")


def signature_of(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(the other words, option -> what was given) of a command line."""
    rest, given = list(words), dict[str, str]()
    for option in _OPTIONS:
        if option in rest:
            position = rest.index(option)
            given[option] = " ".join(rest[position + 1 : position + 2]).strip()
            del rest[position : position + 2]
    return rest, given
