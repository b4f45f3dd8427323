"""The space of linear-attention token mixers: its baselines, and the operators that grow them.

Imports no JAX: candidates are text here, and `ops` is imported by candidates alone.
"""

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

from nas.space import NotApplicable
from nas.types import Candidate, Operator
from search_spaces.linear_attention.grammar import (
    METHOD_ORDER,
    capitalised,
    mixer_of,
    parts_of,
    uncapitalised,
    with_docstrings,
    with_parts,
)
from search_spaces.linear_attention.parts import CUSTOM, SLOTS, Part, known_parts

Parts = Mapping[str, Part]
Changes = list[Part]

# What a part may need from another slot, and the part that is put there when nothing gives it.
REMEDIES = {
    "unit keys": ("normalize", "l2"),
    "free keys": ("normalize", "off"),
    "strength": ("strength", "sigmoid"),
    "strength to one": ("strength", "sigmoid"),
    "decay": ("decay", "per head"),
    "decay per head": ("decay", "per head"),
    "no decay": ("decay", "off"),
}
# Slot, whether the part in it has the mechanism, and search words for what helps a mixer without it. What Gated
# DeltaNet loses most without comes first (Yang et al. 2024, https://arxiv.org/abs/2412.06464, ablations).
MECHANISMS: Sequence[tuple[str, Callable[[Mapping[str, str]], bool], str]] = (
    # HGRN2's write rule decays by itself, and one of a candidate's own may.
    ("decay", lambda p: p["decay"] != "off" or p["write_rule"] in ("tied keys", CUSTOM), "decay forgetting gate"),
    ("readout", lambda p: "gate" in p["readout"], "output gate readout"),
    ("convolution", lambda p: p["convolution"] != "off", "short convolution token shift"),
    ("readout", lambda p: p["readout"] != "plain", "output normalisation readout"),
    (
        "write_rule",
        lambda p: any(word in p["write_rule"] for word in ("delta", "two steps", "closed loop")),
        "delta rule erase write_rule",
    ),
)
READ_BY_OTHERS = tuple(
    slot.name for slot in SLOTS.values() if slot.methods and not slot.call and slot.name != "readout"
)
YIELDING = ("position",)  # slots whose part goes when another takes away what it needs


def swap(slot: str) -> Callable[[Sequence[Parts], random.Random], list[Changes]]:
    """Another known part for one slot. What it needs is put in too: the delta rules bring unit keys."""

    def choices(parents: Sequence[Parts], rng: random.Random) -> list[Changes]:
        parts = parents[0]
        options = [part for part in known_parts(slot).values() if part.name != parts[slot].name]
        return _shuffled([[part, *remedies(parts, [part])] for part in options], rng)

    return choices


def crossover(parents: Sequence[Parts], rng: random.Random) -> list[Changes]:
    """Some of the slots in which the second parent differs, as they are there, its own parts included."""
    first, second = parents
    differing = [second[slot] for slot in SLOTS if second[slot] != first[slot]]
    subsets = [rng.sample(differing, rng.randint(1, max(1, len(differing) - 1))) for _ in range(8) if differing]
    return [[*subset, *remedies(first, subset)] for subset in subsets]


def simplify(parents: Sequence[Parts], rng: random.Random) -> list[Changes]:
    """The simplest part for one slot: what does not pay for itself should go."""
    simplest = [known_parts(slot.name)[slot.simplest] for slot in SLOTS.values()]
    return _shuffled([[part] for part in simplest if part.name != parents[0][part.slot].name], rng)


OPERATORS: Mapping[str, tuple[Operator, Callable[[Sequence[Parts], random.Random], list[Changes]]]] = {
    name: (Operator(name, describe, parents), choices)
    for name, describe, parents, choices in (
        ("feature_map", "Changes what queries and keys go through before they meet.", 1, swap("feature_map")),
        ("normalize", "Changes how queries and keys are normalised.", 1, swap("normalize")),
        ("decay", "Changes how the state forgets: not, per head or per channel, fixed or by token.", 1, swap("decay")),
        (
            "write_rule",
            "Changes how a key and a value change the state: added, gated, normalised, or by a delta rule.",
            1,
            swap("write_rule"),
        ),
        (
            "convolution",
            "Changes what a token sees of its neighbours before it becomes query, key and value.",
            1,
            swap("convolution"),
        ),
        ("strength", "Changes how much of a value a token writes, and whether it may overshoot.", 1, swap("strength")),
        ("position", "Changes whether queries and keys turn with time.", 1, swap("position")),
        ("hybrid", "Changes whether attention over a short window stands beside the state.", 1, swap("hybrid")),
        ("skip", "Changes what of the present token goes past the state.", 1, swap("skip")),
        ("readout", "Changes the norm and the gate on the output.", 1, swap("readout")),
        ("layout", "Changes the number of heads, and the widths of keys and values.", 1, swap("layout")),
        ("crossover", "Takes some slots of the first parent from the second.", 2, crossover),
        ("simplify", "Takes a mechanism out.", 1, simplify),
    )
}


class LinearAttentionSpace:
    """Token mixers with a state of fixed size per head, in eleven slots. Satisfies `nas.space.SearchSpace`."""

    name = "linear_attention"
    allowed_imports = frozenset(
        {
            "jax",
            "jax.numpy",
            "jax.nn",
            "jax.lax",
            "flax.nnx",
            "einops",
            "math",
            "functools",
            "typing",
            "dataclasses",
            "search_spaces.linear_attention.ops",
        }
    )
    operators = tuple(operator for operator, _ in OPERATORS.values())
    # The strongest published baseline, and in the middle of the range of parameters that the slots span: the MLP,
    # which takes up the difference, is neither starved nor swollen by any candidate.
    reference = "gated_deltanet"
    # For a search that has minutes. What the others have beside, the grammar's operators can put in.
    notes = Path(__file__).parent / "notes"
    contract = (Path(__file__).parent / "contract.md").read_text(encoding="utf-8")
    starters = ("linear_attention", "retnet", "gla", "mamba2", "deltanet", "gated_deltanet")

    def baselines(self) -> Mapping[str, Candidate]:
        """The published mixers; those that cannot have the slots' shape say why."""
        return {name: mixer for name, mixer in self._mixers.items() if name != "softmax_attention"}

    def outside_references(self) -> Mapping[str, Candidate]:
        """Softmax attention: quadratic in time, trained for comparison alone."""
        return {"softmax_attention": self._mixers["softmax_attention"]}

    @cached_property
    def _mixers(self) -> Mapping[str, Candidate]:
        files = sorted((Path(__file__).parent / "mixers").glob("[!_]*.py"))
        return {file.stem: Candidate(file.read_text(), "baseline", name=file.stem) for file in files}

    def mutate(self, operator: Operator, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A child of `parents`: the same arguments give the same child, and never a parent's source.

        Raises:
          NotApplicable: if the operator has nothing to change in these parents, or cannot change it.
        """
        parts = [parts_of(parent.source) for parent in parents[: operator.parents]]
        if len(parts) < operator.parents:
            raise NotApplicable(f"{operator.name} takes {operator.parents} parents, got {len(parts)}")
        refusal = NotApplicable(f"{operator.name} finds nothing else to put in")
        for changes in OPERATORS[operator.name][1](parts, rng):
            try:
                if _told_by_parts(parents[0].source, [*parts[0].values(), *changes]):
                    settled(parts[0], changes)  # to be refused before it is made: that takes tens of milliseconds
                return _child(operator, parents[: operator.parents], parts[0], changes)
            except NotApplicable as error:
                refusal = error
        raise refusal

    def compose(self, genome: Mapping[str, str]) -> Candidate:
        """The candidate with these parts, and in slots that are not named the one that does least.

        Raises:
          NotApplicable: if there is no such part, or one needs what no other gives.
        """
        for slot, name in genome.items():
            if slot not in SLOTS or name not in known_parts(slot):
                raise NotApplicable(f"there is no part {slot}={name}")
        least = {slot: next(iter(known_parts(slot))) for slot in SLOTS}
        source, parts = self._composed({**least, **genome})
        check_needs(parts_of(source))
        title = f"{capitalised(self.family(source))}: a token mixer put together of parts."
        return Candidate(with_docstrings(source, title, parts), "composed", proposer="grammar")

    def _composed(self, genome: Mapping[str, str]) -> tuple[str, Changes]:
        """The source and its parts; a part that only others would read is left out where none does."""
        refusal = NotApplicable("there are no parts")
        for unread in ((), *((slot,) for slot in READ_BY_OTHERS), READ_BY_OTHERS):
            chosen = {**genome, **{slot: next(iter(known_parts(slot))) for slot in unread}}
            parts = [known_parts(slot)[name] for slot, name in chosen.items()]
            try:
                return with_parts(self._mixers["linear_attention"].source, parts), parts
            except NotApplicable as error:
                refusal = error
        raise refusal

    def variants(
        self, operator: Operator, genomes: Sequence[Mapping[str, str]], rng: random.Random
    ) -> Sequence[Mapping[str, str]]:
        """What `mutate` could make with these draws, as genomes, in the order in which it tries them.

        Raises:
          NotApplicable: for an operator that is not the grammar's, too few genomes, or one with a part of its own: what
            that needs and gives is in its source alone.
        """
        if operator.name not in OPERATORS or len(genomes) < operator.parents:
            raise NotApplicable(f"{operator.name} with {len(genomes)} parents is not the grammar's")
        if any(CUSTOM in genome.values() for genome in genomes):
            raise NotApplicable("a part of its own is not in the grammar")
        parts = [{slot: known_parts(slot)[name] for slot, name in genome.items()} for genome in genomes]
        found = []
        for changes in OPERATORS[operator.name][1](parts[: operator.parents], rng):
            with contextlib.suppress(NotApplicable):
                after = {slot: part.name for slot, part in settled(parts[0], changes).items()}
                if after not in genomes[: operator.parents]:  # else it gives back a parent
                    found.append(after)
        return found

    def describe(self, source: str) -> Mapping[str, str]:
        """Slot -> name of the known part in it, or "custom"."""
        return _described(source)

    def lacks(self, source: str) -> Sequence[str]:
        """Search words for known mechanisms that `source` has not; of a part of its own nothing is said."""
        parts = self.describe(source)
        return [words for slot, present, words in MECHANISMS if parts[slot] != CUSTOM and not present(parts)]

    def context(self, operator: Operator, source: str) -> Sequence[str]:
        """The part that stands in the operator's slot, if it has one; then the family."""
        family = _family(source)
        return (self.describe(source)[operator.name], family) if operator.name in SLOTS else (family,)

    def family(self, source: str) -> str:
        """Write rule and decay, e.g. "delta, decay per head"."""
        return _family(source)


SPACE = LinearAttentionSpace()


@lru_cache(maxsize=4096)
def _described(source: str) -> Mapping[str, str]:
    try:
        return MappingProxyType({slot: part.name for slot, part in parts_of(source).items()})
    except NotApplicable:
        return MappingProxyType(dict.fromkeys(SLOTS, CUSTOM))


@lru_cache(maxsize=4096)
def _family(source: str) -> str:
    try:
        parts = parts_of(source)
    except NotApplicable:
        return CUSTOM
    write, decay = parts["write_rule"], parts["decay"]
    if "," in write.family:
        return write.family
    own_decay = not write.family and "log_decay" in "".join(write.methods.values())
    forgets = "custom decay" if own_decay or not decay.family else decay.family
    return f"{write.family or 'custom write'}, {forgets}"


def _shuffled(choices: list[Changes], rng: random.Random) -> list[Changes]:
    return rng.sample(choices, len(choices))


def remedies(parts: Parts, changes: Changes) -> Changes:
    """Parts that give what `changes` need and nothing else gives; nothing in a slot that has to make way for them."""
    after = {**parts, **{part.slot: part for part in changes}}
    given = _given(after)
    needs = [need for part in changes for need in part.needs if need not in given and need in REMEDIES]
    found = [known_parts(slot)[name] for slot, name in dict.fromkeys(REMEDIES[need] for need in needs)]
    given = _given({**after, **{part.slot: part for part in found}})
    changed = {part.slot for part in changes}
    in_the_way = [slot for slot in YIELDING if slot not in changed and not given.issuperset(after[slot].needs)]
    return [*found, *(known_parts(slot)["off"] for slot in in_the_way)]


def settled(before: Parts, changes: Changes) -> Parts:
    """What is in each slot after `changes`, without a strength that no write rule reads any more.

    Of known parts; what one of a candidate's own reads is in its source alone.

    Raises:
      NotApplicable: if a part needs what no other gives, or nothing reads the strength that is put in.
    """
    after = {**before, **{part.slot: part for part in changes}}
    if after["strength"].gives and not _reads_strength(after):
        if not _reads_strength(before):
            raise NotApplicable("nothing in this candidate reads `self.write_strength`")
        after["strength"] = known_parts("strength")["off"]
    check_needs(after)
    return after


def _reads_strength(parts: Parts) -> bool:
    return any("strength" in part.needs for part in parts.values())


def _told_by_parts(source: str, parts: Sequence[Part]) -> bool:
    """Whether parts say all that matters here: each is known, and no method of another name reads what they define."""
    return not _has_own(parts) and set(mixer_of(source).methods) <= set(METHOD_ORDER)


def _has_own(parts: Sequence[Part]) -> bool:
    """Whether one of them is a candidate's own."""
    return any(part.name == CUSTOM for part in parts)


def _given(parts: Parts) -> set[str]:
    return {gift for part in parts.values() for gift in part.gives}


def _child(operator: Operator, parents: Sequence[Candidate], before: Parts, changes: Changes) -> Candidate:
    if _has_own(changes):  # what it is stands in another parent's source
        return _made_child(operator, parents, before, changes)
    found = _known_child(operator, tuple(parents), tuple((part.slot, part.name) for part in changes))
    if isinstance(found, Candidate):
        return found
    raise NotApplicable(found)


@lru_cache(maxsize=4096)  # the parents of many proposals are the same few
def _known_child(
    operator: Operator, parents: tuple[Candidate, ...], changes: tuple[tuple[str, str], ...]
) -> Candidate | str:
    """The child, or why there is none."""
    parts = [known_parts(slot)[name] for slot, name in changes]
    try:
        return _made_child(operator, parents, parts_of(parents[0].source), parts)
    except NotApplicable as error:
        return str(error)


def _made_child(operator: Operator, parents: Sequence[Candidate], before: Parts, changes: Changes) -> Candidate:
    source = with_parts(parents[0].source, changes)
    check_needs(parts_of(source))
    grown_by = f"a change of {SLOTS[operator.name].words}" if operator.name in SLOTS else operator.name
    title = f"{capitalised(SPACE.family(source))}: a token mixer grown by {grown_by}."
    child = Candidate(
        with_docstrings(source, title, changes),
        operator=operator.name,
        parents=tuple(parent.id for parent in parents),
        proposer="grammar",
        motivation=" ".join(_motivation(before[part.slot], part) for part in changes),
    )
    if child.id in child.parents:
        raise NotApplicable(f"{operator.name} gives back a parent")
    return child


def check_needs(parts: Parts) -> None:
    """
    Raises:
      NotApplicable: if a part needs what no other gives.
    """
    given = _given(parts)
    for part in parts.values():
        for need in part.needs:
            if need not in given:
                raise NotApplicable(f"the {SLOTS[part.slot].words} {part.name!r} needs {need}")


def _motivation(old: Part, new: Part) -> str:
    change = f"{SLOTS[new.slot].words.capitalize()}: {uncapitalised(new.phrase)}, not {uncapitalised(old.phrase)}"
    return f"{change}: {new.reason}" if new.reason else f"{change}."
