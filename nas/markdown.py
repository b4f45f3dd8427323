"""Text in Markdown that stays text."""

import re


def as_text(line: str) -> str:
    """`line` as Markdown that shows it as it is. Entities: MLflow's page leaves backslashes standing."""
    return re.sub(r"[&<>`*_{}\[\]#~|!\\@]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", line)


def as_prose(line: str) -> str:
    """As `as_text`, but what is harmless within a line stays: intervals and names can be read in the file itself."""
    return re.sub(r"[&<>`*~|@\\]|!(?=\[)|(?<=\])[(\[:]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", line)
