"""The prompts: files that a person can read, and put others in the place of.

One file a role, in `prompts/` beside this module or, by the same name, in a person's own folder. A file is a Jinja
template in two parts, the system message and, below a line `=== user ===`, the user message. `VALUES` says what each
may use. `ground_rules.md` is what researcher and engineer both have to know, and `again.md` the message that sends an
answer back.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nas.errors import UserError
from nas.llm.quoting import quoted

PROMPTS = Path(__file__).parent / "prompts"
ROLES = ("researcher", "engineer", "analyst", "judge", "editor")
AGAIN = "again"
GROUND_RULES = "ground_rules"
_DIVIDER = re.compile(r"^=== user ===[ \t]*$", re.MULTILINE)
_SYSTEM_LETTERS = 20_000  # of a variant with its placeholders filled in; it may have 12,000 of its own
_PLACEHOLDER = re.compile(r"\{\{\s*([a-z_]+)(?:\.([a-z_]+))?\s*\}\}")

Message = Mapping[str, str]

# What a template may use, as an example: every role has what "everyone" has, and `ground_rules`, that file rendered.
_TRIED: Mapping[str, Any] = {
    "id": "5a75ae81ef2a",
    "source": "class TokenMixer: ...",
    "motivation": "why it should help",
    "curve": [(100, 3.1), (200, 2.7)],  # (step, bits per byte on validation)
    "bits_per_byte": 2.7,
    "certificate": {"flops_per_token": 1e5, "params": 17_000, "state_bytes": 4096, "exponents": {"flops": 1.0}},
    "family": "delta, decay per head",
}
VALUES: Mapping[str, Mapping[str, Any]] = {
    "everyone": {
        "space": "linear_attention",
        "contract": "what a candidate must be, in the space's words",
        "limits": {
            "max_params": 20_000,  # of one mixer
            "max_flops_per_token": 2e5,  # forward, of one mixer
            "train_time": 256,  # tokens of a training sequence
            "width": 64,
            "heads": 2,
        },
    },
    "researcher": {
        "operator": {"name": "decay", "describe": "Changes how the state forgets."},
        "kind": "diff",  # or "rewrite", "crossover"
        "parents": [_TRIED],
        "inspirations": [
            {"id": "0c1d", "source": "...", "motivation": "...", "bits_per_byte": 2.8, "why": "diverse"},
        ],
        "notes": [{"id": "deltanet", "text": "..."}],
        "lessons": ["decay: per head -> per channel gained 0.031 bits per byte (2 of 2)"],
        "baselines": [("gated_deltanet", 2.69)],
        "noise": 0.008,  # standard deviation between seeds, in bits per byte
    },
    "engineer": {
        "source": "...",
        "motivation": "...",
        "check": "causality",  # of the gate, or the cause of a crash
        "reason": "output 17 moved when input 40 changed",
        "repairs_left": 1,
    },
    "analyst": {
        "candidate": {**_TRIED, "operator": "decay"},
        "parents": [_TRIED],
        "siblings": [{"id": "77aa", "motivation": "...", "gain": -0.01, "outcome": "2.81 bits per byte"}],
        "predicted_gain": 0.03,
        "gain": 0.01,
        "noise": 0.008,
        "outcome": "2.70 bits per byte after 300 steps",
        "rules": "what the rules make of it",
        "lessons": ["..."],
    },
    "judge": {"source": "...", "parents": ["..."]},  # sources, and no score anywhere
    "editor": {
        "text": "the researcher's system text",
        "counts": {"proposals": 40, "unusable": 3, "rejected": 12, "better than the best parent": 4},
        "reasons": ["causality: output 17 moved when input 40 changed"],
    },
    AGAIN: {
        "kind": "near copy",  # or "json", "schema", "diff", "python", "copy"
        "problem": "...",
        "resembles": {"id": "5a75ae81ef2a", "similarity": 0.9995, "source": "..."},  # None but for copies
    },
}


class Templates:
    """The prompts of a search.

    Args:
      folder: a person's own files, each in the place of the one of its name.

    Raises:
      UserError: in one sentence, if there is no such folder or a file in it can't be used.
    """

    def __init__(self, folder: str | None = None):
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"llm.prompts={folder} is no folder")
        self._folders = [Path(folder)] if folder is not None else []
        self._folders.append(PROMPTS)
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(self._folders),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # prompts are no HTML; data goes through `quoted`
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["quoted"] = quoted
        names = (GROUND_RULES, *ROLES, AGAIN)
        self._texts = {name: self._read(name) for name in names}
        self._parts = {name: self._compiled(name) for name in names}
        for role in (*ROLES, AGAIN):
            self._try(role)

    def render(self, role: str, values: Mapping[str, Any], system: str | None = None) -> tuple[Message, ...]:
        """The messages for `role`: system and user, or the user's alone for "again".

        Args:
          values: as in `VALUES`, those of "everyone" included.
          system: a variant of the system text. It is text, not a template: only plain placeholders such as
            `{{ limits.width }}` are filled in, each at its first place and with nothing at others, and the ground
            rules are put at its end where it has no place for them. A variant that comes out longer than 20,000
            characters is passed over for the role's own file.
        """
        values = {**values, GROUND_RULES: self._parts[GROUND_RULES][0].render(values).strip()}
        texts = [part.render(values).strip() for part in self._parts[role]]
        if system is not None and len(variant := _filled(system, values).strip()) <= _SYSTEM_LETTERS:
            texts[0] = variant
        roles = ("system", "user")[-len(texts) :]
        return tuple({"role": who, "content": text} for who, text in zip(roles, texts, strict=True))

    def text(self, role: str) -> str:
        """The system part of a role's file, as it is written."""
        return self._texts[role][0].strip()

    def _read(self, name: str) -> list[str]:
        """The parts of a file: two of a role's."""
        try:
            file = next(file for folder in self._folders if (file := folder / f"{name}.md").is_file())
            parts = _DIVIDER.split(file.read_text("utf-8"))
        except (OSError, UnicodeError) as error:
            raise UserError(f"the prompt {name}.md can't be read: {error}") from None
        if len(parts) != (2 if name in ROLES else 1):
            raise UserError(f"the prompt {name}.md needs {'one line' if name in ROLES else 'no line'} `=== user ===`")
        return parts

    def _compiled(self, name: str) -> list[jinja2.Template]:
        known = {*VALUES["everyone"], *VALUES.get(name, ()), *([GROUND_RULES] if name != GROUND_RULES else [])}
        try:
            trees = [self._environment.parse(part) for part in self._texts[name]]
            compiled = [self._environment.from_string(part) for part in self._texts[name]]
        except jinja2.TemplateError as error:  # a filter that there isn't, too
            raise UserError(f"the prompt {name}.md is no template: {error}") from None
        unknown = set().union(*map(meta.find_undeclared_variables, trees)) - known
        if unknown:
            given = ", ".join(sorted(known))
            raise UserError(f"the prompt {name}.md uses {min(unknown)}, which it is not given: there are {given}")
        return compiled

    def _try(self, role: str) -> None:
        """Renders the role's prompt with examples: a person's mistake shows before anything has been paid for."""
        for values in _examples(role):
            try:
                self.render(role, values)
            except Exception as error:  # a template can do what an expression can
                raise UserError(f"the prompt {role}.md or {GROUND_RULES}.md can't be filled in: {error}") from None


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """A variant with the value of each placeholder once: a page of placeholders would fill a thousand pages."""
    filled: set[tuple[str, str | None]] = set()

    def value(match: re.Match[str]) -> str:
        name = match[1], match[2]
        found = values.get(match[1])
        if match[2] is not None:
            found = found.get(match[2]) if isinstance(found, Mapping) else None
        if not isinstance(found, str | int | float):
            return match[0]
        if name in filled:
            return ""
        filled.add(name)
        return str(found)

    places = {match[1] for match in _PLACEHOLDER.finditer(text)}
    missing = "" if GROUND_RULES in places else f"\n\n{values[GROUND_RULES]}"
    return _PLACEHOLDER.sub(value, text) + missing


def _examples(role: str) -> Iterator[Mapping[str, Any]]:
    """Values of every kind that a search may come up with: all there, each list empty, each number unknown."""
    full = {**VALUES["everyone"], **VALUES[role]}
    yield full
    if role == "researcher":
        for kind in ("rewrite", "crossover"):
            yield {**full, "kind": kind, "parents": [_TRIED, _TRIED]}
    yield {key: _bare(key, value) for key, value in full.items()}


_UNKNOWN = ("bits_per_byte", "certificate", "gain", "predicted_gain", "resembles")
_NO_LIMIT = ("max_params", "max_flops_per_token")


def _bare(key: str, value: Any) -> Any:
    if key in _UNKNOWN + _NO_LIMIT:
        return None
    if key in ("parents", "candidate", "limits"):
        of = value if isinstance(value, list) else [value]
        bare = [{k: _bare(k, v) for k, v in one.items()} if isinstance(one, Mapping) else one for one in of]
        return bare if isinstance(value, list) else bare[0]
    return [] if isinstance(value, list) else value
