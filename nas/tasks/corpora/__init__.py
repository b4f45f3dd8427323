"""Where text comes from, one file a kind. A new kind is a file like those and a line here."""

from collections.abc import Mapping

from nas.tasks.corpora import docstrings, huggingface, stdlib, text, token_bin
from nas.tasks.corpora.source import Kind

KINDS: Mapping[str, Kind] = {
    "stdlib": stdlib,
    "docstrings": docstrings,
    "text": text,
    "token_bin": token_bin,
    "huggingface": huggingface,
}
