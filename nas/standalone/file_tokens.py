"""Text and tokens, by the tokenizer that the model was trained with."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

_TOKENIZER = Tokenizer.from_file(str(Path(__file__).parent.parent / "tokenizer.json"))
_TOKENIZER.encode_special_tokens = True  # text that looks like a special token is text


def encode(text: str) -> list[int]:
    found: list[int] = _TOKENIZER.encode(text, add_special_tokens=False).ids
    return found


def decode(tokens: Sequence[int]) -> str:
    found: str = _TOKENIZER.decode(list(tokens))
    return found
