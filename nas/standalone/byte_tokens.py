"""Text and tokens: each byte is one."""

from collections.abc import Sequence


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", "replace")
