"""Answers as a team of models would give them: real edits, rewrites, crossovers and repairs of what prompts show."""

import difflib
import json
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from endpoint import Reply, Request, text

QUOTED = re.compile(r"^\[\[begin ([^\n]*?) #([0-9a-f]+)\]\]\n(.*?)\n\[\[end \1 #\2\]\]$", re.MULTILINE | re.DOTALL)
Write = Callable[[str, Sequence[str], random.Random], str]  # (operator, sources, rng) -> source


def quoted_in(request: Mapping[str, Any], label: str) -> list[str]:
    """What a prompt shows under labels that begin so."""
    user = request["messages"][1]["content"]
    return [match[3] for match in QUOTED.finditer(user) if match[1].startswith(label)]


def role_of(request: Mapping[str, Any]) -> str:
    """ "proposal", "repair", "analysis", "opinion" or "prompt": the answer that is asked for."""
    return str(request["response_format"]["json_schema"]["name"])


def edits_between(old: str, new: str) -> list[dict[str, str]]:
    """SEARCH/REPLACE edits, each with as many lines around it as make its search text unique."""
    before, after = old.splitlines(), new.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    first, last = changed[0][1], changed[-1][2]
    new_first, new_last = changed[0][3], changed[-1][4]
    while old.count("\n".join(before[first:last])) != 1 or first == last:
        if first:
            first, new_first = first - 1, new_first - 1
        elif last < len(before):
            last, new_last = last + 1, new_last + 1
    return [{"search": "\n".join(before[first:last]), "replace": "\n".join(after[new_first:new_last])}]


class Team:
    """`Team(write)` is an `answer` for `Endpoint`.

    Args:
      write: makes the researcher's child of the parents.
      broken: every how many proposals is broken by `spoil`, so that the engineer has something to do; 0 for none.
    """

    def __init__(
        self, write: Write, broken: int = 0, spoil: Callable[[str], str] = str, mend: Callable[[str], str] = str
    ):
        self._write, self._broken, self._spoil, self._mend = write, broken, spoil, mend
        self._proposals = 0
        self._lock = threading.Lock()
        self.roles: list[str] = []

    def __call__(self, request: Request, number: int) -> Reply:
        role = role_of(request)
        with self._lock:
            self.roles.append(role)
            if role == "proposal" and len(request["messages"]) == 2:
                self._proposals += 1
            spoiled = role == "proposal" and self._broken and self._proposals % self._broken == 0
        return text(json.dumps(getattr(self, f"_{role}")(request, spoiled)))

    def _proposal(self, request: Request, spoiled: bool) -> dict[str, Any]:
        user = request["messages"][1]["content"]
        operator = re.search(r"The kind of change: `(\w+)`", user)
        assert operator
        sources = quoted_in(request, "parent ")
        child = self._write(operator[1], sources, random.Random(f"{request['seed']}/{len(request['messages'])}"))
        child = self._spoil(child) if spoiled else child
        change = {"source": child, "edits": None}
        if "Edit the parent" in user:
            change = {"source": None, "edits": edits_between(sources[0], child)}
        return {"motivation": "it may help", "because": "of a reason", "predicted_gain": 0.02, **change}

    def _repair(self, request: Request, spoiled: bool) -> dict[str, Any]:
        (source,) = quoted_in(request, "broken candidate")
        edits = edits_between(source, self._mend(source))
        return {"motivation": "mended", "same_idea": True, "edits": edits, "source": None}

    def _analysis(self, request: Request, spoiled: bool) -> dict[str, Any]:
        return {"text": "It did what it did.", "effect": "helps", "lesson": "Do more of it."}

    def _opinion(self, request: Request, spoiled: bool) -> dict[str, Any]:
        return {"because": "It is plain.", "novelty": 3, "simplicity": 8}

    def _prompt(self, request: Request, spoiled: bool) -> dict[str, Any]:
        (old,) = quoted_in(request, "system prompt")
        return {"text": f"Be bold.\n\n{old}"}
