"""Text in Markdown that stays text."""

import re


def as_text(line: str) -> str:
    """`line` as Markdown that shows it as it is. Entities: MLflow's page leaves backslashes standing."""
    return re.sub(r"[&<>`*_{}\[\]#~|!\\@]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", line)
