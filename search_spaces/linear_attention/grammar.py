"""Puts parts into the slots of a token mixer's source, and leaves every other line as it was written.

Candidates are edited as text at positions taken from `ast`: comments and formatting survive, and whoever wrote a
candidate, it can be mutated while it keeps the slots' shape. Where it does not, `NotApplicable` says what is missing.
"""

import ast
import builtins
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from nas.parsing import parse
from nas.space import NotApplicable
from search_spaces.linear_attention.parts import (
    CUSTOM,
    LAYOUT,
    PIPELINE,
    SLOTS,
    Part,
    Slot,
    Targets,
    first_line,
    known_parts,
    lines_of,
    nodes_of,
    state_entries,
    targets_of,
)

CONTRACT = ("__init__", "__call__", "step", "init_state", "forward")
METHOD_ORDER = (
    *CONTRACT,
    "project",
    "feature_map",
    "normalize",
    "rotate",
    "log_decay",
    "write_strength",
    "update",
    "look_back",
    "skip",
    "readout",
)
# In the order, and with the blank lines, that isort gives them.
IMPORT_GROUPS = (
    {"math": "import math"},
    {
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "rearrange": "from einops import rearrange",
        "nnx": "from flax import nnx",
        "lax": "from jax import lax",
    },
    {"ops": "from search_spaces.linear_attention import ops"},
)
IMPORTS = [(name, line) for group in IMPORT_GROUPS for name, line in group.items()]
DECAYING_OPS = frozenset({"ops.linear_attention", "ops.delta_rule", "ops.dplr"})
DECAY_KEYWORD = "log_decay=self.log_decay(x)"
LINE_LENGTH = 120
SILENT = frozenset({"off", "square"})  # parts that a docstring need not speak of
FRAME = {  # what every mixer in the slots' shape shares; between the two lines of `forward` come the slots' calls
    "__call__": "def __call__(self, x):\n    return self.forward(x, self.init_state(x.shape[0]))[0]",
    "step": "def step(self, x_t, state):\n    y, state = self.forward(x_t[:, None], state)\n    return y[:, 0], state",
    "forward": "def forward(self, x, state):\n    state = dict(state)\n    return self.readout(x, y), state",
}


class Mixer:
    """A candidate's source with the positions of what it is made of; nobody changes its tree.

    Raises:
      NotApplicable: if it does not parse, or has no class `TokenMixer` with an `__init__`.
    """

    def __init__(self, source: str):
        self.source = source
        try:
            self.tree = parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise NotApplicable(f"the source does not parse: {error}") from error
        classes = [node for node in self.tree.body if isinstance(node, ast.ClassDef) and node.name == "TokenMixer"]
        if not classes:
            raise NotApplicable("the source defines no class `TokenMixer`")
        self.cls = classes[-1]
        self.methods = {node.name: node for node in self.cls.body if isinstance(node, ast.FunctionDef)}
        if "__init__" not in self.methods:
            raise NotApplicable("`TokenMixer` has no `__init__`")

    @cached_property
    def fields(self) -> Mapping[Targets, ast.stmt]:
        """Names that a statement of `__init__` assigns -> that statement."""
        return {targets: line for line in self.methods["__init__"].body if (targets := targets_of(line))}

    @cached_property
    def calls(self) -> Mapping[str, ast.stmt]:
        """Method -> the statement of `forward` that calls it."""
        return {name: line for line in self.methods["forward"].body for name in self_reads(line)}

    @cached_property
    def state(self) -> Mapping[str, str] | None:
        """Key -> expression that the decoding state starts from; None if `init_state` returns no plain dictionary."""
        init_state = self.methods.get("init_state")
        return state_entries(init_state, self.source) if init_state else None

    @cached_property
    def fields_in_one_formatting(self) -> Mapping[Targets, str]:
        return {targets: canonical(lines_of(line, self.source)) for targets, line in self.fields.items()}

    @cached_property
    def state_in_one_formatting(self) -> Mapping[str, str]:
        return {key: canonical(text) for key, text in (self.state or {}).items()}

    @cached_property
    def imports(self) -> Sequence[ast.stmt]:
        return [node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names that the class reads: from `self` anywhere, and plain ones in `__init__`."""
        return self_reads(self.cls) | name_reads(self.methods["__init__"])

    @cached_property
    def bound_names(self) -> set[str]:
        """Plain names that anything in the module binds."""
        nodes = nodes_of(self.tree)
        bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
        bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        bound |= {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        aliases = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
        return bound | {alias.asname or alias.name.partition(".")[0] for alias in aliases}

    def text(self, method: str) -> str:
        """The source of a method, without its indentation; nothing if there is none."""
        return lines_of(self.methods[method], self.source) if method in self.methods else ""

    def replace(self, first: int, last: int, text: str) -> "Mixer":
        """With `text` in the place of the lines first..last, counted from one; last = first - 1 inserts."""
        lines = self.source.splitlines(keepends=True)
        return mixer_of("".join([*lines[: first - 1], text, *lines[last:]]))

    def whole_lines(self, node: ast.stmt) -> tuple[int, int]:
        """First and last line of `node`, with the comment lines right above it.

        Raises:
          NotApplicable: if it shares a line with another statement.
        """
        lines = self.source.splitlines()
        first, last = first_line(node), node.end_lineno or node.lineno
        before = lines[first - 1].encode()[: node.col_offset] if first == node.lineno else b""
        after = lines[last - 1].encode()[node.end_col_offset :].strip()
        if before.strip() or (after and not after.startswith(b"#")):
            raise NotApplicable(f"line {first} holds more than one statement")
        while first > 1 and lines[first - 2].strip().startswith("#"):
            first -= 1
        return first, last


@lru_cache(maxsize=32)
def mixer_of(source: str) -> Mixer:
    """`Mixer(source)`: one source is looked at many times on the way from a parent to its children."""
    return Mixer(source)


@lru_cache(maxsize=1024)  # by identity: of a tree that nobody changes
def self_reads(node: ast.AST) -> frozenset[str]:
    """Names read from `self` anywhere in `node`."""
    return frozenset(
        child.attr
        for child in nodes_of(node)
        if isinstance(child, ast.Attribute)
        and isinstance(child.ctx, ast.Load)
        and isinstance(child.value, ast.Name)
        and child.value.id == "self"
    )


def state_keys(node: ast.AST) -> set[str]:
    """Keys of `state` that are read or written anywhere in `node`."""
    return {
        str(child.slice.value)
        for child in nodes_of(node)
        if isinstance(child, ast.Subscript)
        and isinstance(child.value, ast.Name)
        and child.value.id == "state"
        and isinstance(child.slice, ast.Constant)
    }


def name_reads(node: ast.AST) -> set[str]:
    """Plain names read anywhere in `node`."""
    return {child.id for child in nodes_of(node) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)}


# --- What is in a slot ---


def parts_of(source: str) -> dict[str, Part]:
    """Slot -> the part in it: a known one, or the candidate's own under the name "custom".

    What was found is kept: a parent has many children.

    Raises:
      NotApplicable: if the source is no mixer in the slots' shape, or Python itself can't take it apart: whoever writes
        candidates can nest them too deeply, or put letters into them that end lines for some and not for others.
    """
    return dict(_parts_of(source))


@lru_cache(maxsize=1024)
def _parts_of(source: str) -> Mapping[str, Part]:
    try:
        mixer = _slotted(source)
        return {slot.name: _known_part(mixer, slot) or _own_part(mixer, slot) for slot in SLOTS.values()}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotApplicable(f"the source can't be taken apart: {type(error).__name__}: {error}") from error


def _slotted(source: str) -> Mixer:
    mixer = mixer_of(source)
    if missing := {"forward", "update"} - set(mixer.methods):
        raise NotApplicable(f"`TokenMixer` has no method `{min(missing)}`, which the slots' shape asks for")
    return mixer


def _known_part(mixer: Mixer, slot: Slot) -> Part | None:
    """The known part with exactly these methods, fields, call and state, whatever their comments and formatting."""
    if slot.name == "convolution" and not _has_standard_frame(mixer):
        return None  # where a hand wrote the frame, the projection stands for it
    methods = {name: canonical(mixer.text(name)) for name in slot.methods if name in mixer.methods}
    fields, state, call = mixer.fields_in_one_formatting, mixer.state_in_one_formatting, _call_of(mixer, slot)
    for part in known_parts(slot.name).values():
        if (
            methods == {name: canonical(text) for name, text in part.methods.items()}
            and call == canonical(part.call)
            and all(fields.get(targets) == canonical(text) for targets, text in part.fields.items())
            and all(state.get(key) == canonical(text) for key, text in part.state.items())
        ):
            return part
    return None


def _call_of(mixer: Mixer, slot: Slot) -> str:
    """The statement of `forward` that calls the slot's method, in one formatting; nothing if none does."""
    method = slot.methods[0] if slot.call else ""
    return ast.unparse(mixer.calls[method]) if method in mixer.calls else ""


def _has_standard_frame(mixer: Mixer) -> bool:
    """Whether around the slots stands what every mixer shares, and `forward` calls them in their order."""
    stages = [stage for line in _forward(mixer) if (stage := _stage(line)) is not None]
    frame = all(canonical(mixer.text(name)) == canonical(text) for name, text in FRAME.items())
    return frame and stages == sorted(set(stages))


def _forward(mixer: Mixer) -> Sequence[ast.stmt]:
    return mixer.methods["forward"].body


def _stage(line: ast.stmt) -> int | None:
    """Which stage of the pipeline a statement of `forward` calls."""
    return next((i for i, name in enumerate(PIPELINE) if self_reads(line) & set(SLOTS[name].methods)), None)


def _own_part(mixer: Mixer, slot: Slot) -> Part:
    """What the candidate has in `slot`, with the helpers, fields and state that only this reads."""
    elsewhere = {name for other in SLOTS.values() if other != slot for name in other.methods} | set(CONTRACT)
    methods: dict[str, str] = {}
    fields: dict[Targets, str] = {}
    call = mixer.calls.get(slot.methods[0]) if slot.call else None
    state = {key: text for key, text in (mixer.state or {}).items() if call and key in state_keys(call)}
    wanted = [*(slot.methods or LAYOUT), *self_reads(parse("\n".join(state.values())))]
    seen = elsewhere | set(LAYOUT if slot.methods else ())
    wanted = [name for name in wanted if name not in seen]
    while wanted:
        name = wanted.pop()
        nodes = [line for targets, line in mixer.fields.items() if name in targets]
        fields |= {targets_of(line): lines_of(line, mixer.source) for line in nodes}
        if name in mixer.methods:
            methods[name] = mixer.text(name)
            nodes.append(mixer.methods[name])
        seen.add(name)
        reads = {read for node in nodes for read in self_reads(node) | name_reads(node)}
        wanted += sorted(reads - seen - set(wanted))
    ordered = {targets: fields[targets] for targets in mixer.fields if targets in fields}
    text = lines_of(call, mixer.source) if call else ""
    return Part(
        slot.name, CUSTOM, f"a {slot.words} of its own", "", ordered, methods, text, state, **_labels(slot, methods)
    )


def _labels(slot: Slot, methods: Mapping[str, str]) -> dict[str, Any]:
    """What a part of unknown make needs and gives, as far as its text tells."""
    text = "\n".join(map(canonical, methods.values()))
    needs = {
        "unit keys": "delta_rule(" in text,
        "decay per head": "mlstm(" in text,
        "decay": "self.log_decay" in text,
        "strength": "self.write_strength" in text,
    }
    gives = {
        "unit keys": slot.name == "normalize" and "l2_normalize(" in text,
        "decay": "log_decay" in methods,
        "strength": "write_strength" in methods,
    }
    return {
        "needs": tuple(name for name, holds in needs.items() if holds),
        "gives": tuple(name for name, holds in gives.items() if holds),
    }


class _Bare(ast.NodeTransformer):
    """Takes out what slots put into each other: their calls in `forward`, the decay's keyword; and docstrings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if node.name == "forward":
            body = [line for line in body if isinstance(line, ast.Return) or _stage(line) is None]
        node.body = body or [ast.Pass()]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if ast.unparse(keyword) != DECAY_KEYWORD]
        return self.generic_visit(node)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """`text` with one formatting, and without what other slots own."""
    return ast.unparse(_Bare().visit(parse(text)))


# --- Putting parts in ---


def with_parts(source: str, parts: Iterable[Part]) -> str:
    """`source` with each of `parts` in its slot, and without what no line reads any more.

    Raises:
      NotApplicable: if the source has not the slots' shape where it would have to change.
    """
    mixer = _slotted(source)
    read_before = mixer.reads
    for part in parts:
        mixer = _put_state(_put_call(_put_fields(_put_methods(mixer, part), part), part), part)
    mixer = _drop_unread_state(_connect_decay(mixer))
    mixer = _fix_imports(_drop_unread(mixer, read_before))
    _check_names(mixer)
    return mixer.source


def _put_methods(mixer: Mixer, part: Part) -> Mixer:
    for name in SLOTS[part.slot].methods:
        if name in mixer.methods and name not in part.methods:
            mixer = _delete_method(mixer, name)
    for name, text in part.methods.items():
        text = textwrap.indent(text, "    ") + "\n"
        if name in mixer.methods:
            mixer = mixer.replace(*mixer.whole_lines(mixer.methods[name]), text)
            continue
        rank = METHOD_ORDER.index(name) if name in METHOD_ORDER else len(METHOD_ORDER)
        later = [node for node in mixer.methods.values() if node.name in METHOD_ORDER[rank + 1 :]]
        if later:
            line = min(mixer.whole_lines(node)[0] for node in later)
            mixer = mixer.replace(line, line - 1, text + "\n")
        else:
            end = mixer.cls.end_lineno or 0
            mixer = mixer.replace(end + 1, end, "\n" + text)
    return mixer


def _delete_method(mixer: Mixer, name: str) -> Mixer:
    first, last = mixer.whole_lines(mixer.methods[name])
    lines = mixer.source.splitlines()
    while not lines[first - 2].strip():
        first -= 1
    return mixer.replace(first, last, "")


def _put_fields(mixer: Mixer, part: Part) -> Mixer:
    for targets, text in part.fields.items():
        mixer = _put_field(mixer, part, targets, textwrap.indent(text, "        ") + "\n")
    return mixer


def _put_field(mixer: Mixer, part: Part, targets: Targets, text: str) -> Mixer:
    """Replaces the statement with the same targets, or adds one before the output projection."""
    same = mixer.fields.get(targets)
    if same is not None:
        if canonical(lines_of(same, mixer.source)) == canonical(textwrap.dedent(text)):
            return mixer
        if part.slot != "layout":
            _refuse_shared(mixer, part, targets)
        return mixer.replace(*mixer.whole_lines(same), text)
    clash = {name for other in mixer.fields for name in other} & set(targets)
    if clash:
        raise NotApplicable(f"`__init__` makes {sorted(clash)} in another way than the part {part.name!r} does")
    output = mixer.fields.get(("output",))
    end = mixer.whole_lines(output)[0] if output else (mixer.methods["__init__"].end_lineno or 0) + 1
    return mixer.replace(end, end - 1, text)


def _refuse_shared(mixer: Mixer, part: Part, targets: Targets) -> None:
    others = [node for name, node in mixer.methods.items() if name not in (*part.methods, "__init__", "init_state")]
    shared = [node.name for node in others if self_reads(node) & set(targets)]
    if shared:
        raise NotApplicable(f"`self.{targets[0]}` is also read by `{shared[0]}`, so {part.name!r} cannot change it")


def _put_call(mixer: Mixer, part: Part) -> Mixer:
    """`forward` calls the slot's method as the part asks, or not at all."""
    slot = SLOTS[part.slot]
    old = mixer.calls.get(slot.methods[0]) if slot.call else None
    if not slot.call or _call_of(mixer, slot) == canonical(part.call):
        return mixer
    if old and self_reads(old) != {slot.methods[0]}:
        raise NotApplicable(f"`forward` calls `self.{slot.methods[0]}` inside another statement")
    text = textwrap.indent(part.call, "        ") + "\n" if part.call else ""
    if old:
        return mixer.replace(*mixer.whole_lines(old), text)
    later = range(PIPELINE.index(slot.name) + 1, len(PIPELINE))
    place = next((line for line in _forward(mixer) if _stage(line) in later), None)
    if place is None:
        raise NotApplicable(f"`forward` has no statement that calls `self.{SLOTS[PIPELINE[-1]].methods[0]}`")
    first = mixer.whole_lines(place)[0]
    return mixer.replace(first, first - 1, text)


def _put_state(mixer: Mixer, part: Part) -> Mixer:
    """`init_state` starts what the part keeps over time."""
    if not part.state:
        return mixer
    if mixer.state is None:
        raise NotApplicable("`init_state` does not return a dictionary, so that nothing can be kept beside its state")
    return _set_state(mixer, {**mixer.state, **part.state})


def _drop_unread_state(mixer: Mixer) -> Mixer:
    used = state_keys(mixer.methods["forward"])
    return (
        mixer
        if mixer.state is None
        else _set_state(mixer, {key: mixer.state[key] for key in mixer.state if key in used})
    )


def _set_state(mixer: Mixer, state: Mapping[str, str]) -> Mixer:
    if state == mixer.state:
        return mixer
    returned = mixer.methods["init_state"].body[0]
    entries = [f'"{key}": {text}' for key, text in state.items()]
    line = f"        return {{{', '.join(entries)}}}\n"
    if len(line) > LINE_LENGTH:
        line = "".join(["        return {\n", *(f"            {entry},\n" for entry in entries), "        }\n"])
    return mixer.replace(*mixer.whole_lines(returned), line)


def _connect_decay(mixer: Mixer) -> Mixer:
    """`update` hands the decay to its op if and only if there is one."""
    update = mixer.methods.get("update")
    if update is None or ("log_decay" in mixer.methods) == ("log_decay" in self_reads(update)):
        return mixer
    ops = [node for node in ast.walk(update) if isinstance(node, ast.Call) and ast.unparse(node.func) in DECAYING_OPS]
    if len(ops) != 1 or not ops[0].keywords:
        raise NotApplicable(f"`update` does not hand its state to one of {sorted(DECAYING_OPS)} by keyword")
    keywords = ops[0].keywords
    if "log_decay" in mixer.methods:
        if any(keyword.arg == "log_decay" for keyword in keywords):
            raise NotApplicable("`update` has a decay of its own")
        return _edit(mixer, keywords[0], keywords[0], f"{DECAY_KEYWORD}, {ast.unparse(keywords[0])}")
    old = next((i for i, keyword in enumerate(keywords) if ast.unparse(keyword) == DECAY_KEYWORD), None)
    if old is None or len(keywords) == 1:
        raise NotApplicable("`update` uses the decay in a way of its own")
    first = min(old, len(keywords) - 2)
    kept = keywords[old + 1 if old == first else first]
    return _edit(mixer, keywords[first], keywords[first + 1], ast.unparse(kept))


def _edit(mixer: Mixer, first: ast.keyword, last: ast.keyword, text: str) -> Mixer:
    """Replaces what stands from the start of `first` to the end of `last`. `ast` counts columns in bytes."""
    lines = mixer.source.splitlines(keepends=True)
    head = lines[first.lineno - 1].encode()[: first.col_offset].decode()
    end = last.end_lineno or last.lineno
    tail = lines[end - 1].encode()[last.end_col_offset :].decode()
    return mixer.replace(first.lineno, end, head + text + tail)


def _drop_unread(mixer: Mixer, read_before: frozenset[str]) -> Mixer:
    """Without the fields and helpers that were read before and no longer are."""
    while True:
        unread = read_before - mixer.reads
        helper = next((name for name in mixer.methods if name in unread and name not in CONTRACT), None)
        if helper:
            mixer = _delete_method(mixer, helper)
            continue
        line = next((line for targets, line in mixer.fields.items() if set(targets) <= unread), None)
        if line is None:
            return mixer
        mixer = mixer.replace(*mixer.whole_lines(line), "")


def _fix_imports(mixer: Mixer) -> Mixer:
    """Adds the usual imports that are now read, and takes out those that no longer are."""
    reads, bound = name_reads(mixer.tree), mixer.bound_names
    for name, line in IMPORTS:
        found = [node for node in mixer.imports if ast.unparse(node) == line]
        if found and name not in reads:
            mixer = mixer.replace(*mixer.whole_lines(found[0]), "")
        elif name in reads - bound:
            mixer = _add_import(mixer, line)
    return mixer


def _add_import(mixer: Mixer, line: str) -> Mixer:
    order = [text for _, text in IMPORTS]
    imports = {ast.unparse(node): node for node in mixer.imports}
    group = next(list(group.values()) for group in IMPORT_GROUPS if line in group.values())
    later = [node for text, node in imports.items() if text in order[order.index(line) + 1 :]]
    earlier = [node for text, node in imports.items() if text in order[: order.index(line)]]
    if later:
        first = mixer.whole_lines(later[0])[0]
        gap = "" if ast.unparse(later[0]) in group else "\n"
        return mixer.replace(first, first - 1, line + "\n" + gap)
    if not earlier:
        raise NotApplicable("the source has none of the usual imports to put another beside")
    last = mixer.whole_lines(earlier[-1])[1]
    gap = "" if ast.unparse(earlier[-1]) in group else "\n"
    return mixer.replace(last + 1, last, gap + line + "\n")


def _check_names(mixer: Mixer) -> None:
    """
    Raises:
      NotApplicable: if a part reads what this candidate does not define, or is read by nothing.
    """
    defined = {name for targets in mixer.fields for name in targets} | set(mixer.methods)
    stored = {
        node.attr
        for node in nodes_of(mixer.cls)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
    }
    slots = {name for slot in SLOTS.values() for name in slot.methods}
    if idle := slots & set(mixer.methods) - self_reads(mixer.cls):
        raise NotApplicable(f"nothing in this candidate reads `self.{min(idle)}`")
    if missing := self_reads(mixer.cls) - defined - stored:
        raise NotApplicable(f"the part reads `self.{min(missing)}`, which this candidate does not define")
    if unbound := name_reads(mixer.tree) - mixer.bound_names - set(dir(builtins)):
        raise NotApplicable(f"the part reads `{min(unbound)}`, which this candidate does not define")


# --- Saying what it is ---


def with_docstrings(source: str, title: str, changed: Iterable[Part]) -> str:
    """`source` with a module and a class docstring that say what it now is, and why it was last changed."""
    parts = parts_of(source)
    spoken = [part.phrase for part in parts.values() if part.name not in SILENT]
    summary = capitalised("; ".join([spoken[0], *map(uncapitalised, spoken[1:])])) + "."
    reasons = " ".join(f"{capitalised(part.phrase)}: {part.reason}" for part in changed if part.reason)
    text = "\n\n".join(textwrap.fill(paragraph, 112) for paragraph in (summary, reasons) if paragraph)
    closing = '"""\n' if "\n" not in text else '\n"""\n'
    mixer = _put_docstring(
        mixer_of(source), "cls", textwrap.indent('"""' + text + closing, "    ", lambda line: line.strip() != "")
    )
    return _put_docstring(mixer, "tree", f'"""{title}"""\n').source


def capitalised(phrase: str) -> str:
    """`phrase` as it begins a sentence."""
    return phrase[0].upper() + phrase[1:]


def uncapitalised(phrase: str) -> str:
    """`phrase` as it reads inside a sentence: "Decay per head" begins small, "SiLU features" and "RMS norm" do not."""
    word = phrase.split(maxsplit=1)[0]
    return phrase[0].lower() + phrase[1:] if word[1:].islower() or len(word) == 1 else phrase


def _put_docstring(mixer: Mixer, where: str, text: str) -> Mixer:
    node = getattr(mixer, where)
    if ast.get_docstring(node, clean=False) is not None:
        return mixer.replace(*mixer.whole_lines(node.body[0]), text)
    first = mixer.whole_lines(node.body[0])[0]
    return mixer.replace(first, first - 1, text + "\n")
