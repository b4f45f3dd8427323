"""The grammar: every operator, on every baseline and along random walks, gives a sound candidate or says why not."""

import ast
import contextlib
import random
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nas.loading import load_mixer
from nas.space import NotApplicable, load_space
from nas.types import Candidate, Operator
from search_spaces.linear_attention.grammar import Mixer, parts_of, self_reads, with_parts
from search_spaces.linear_attention.parts import CUSTOM, SLOTS, Part, known_parts
from search_spaces.linear_attention.space import SPACE, remedies

OPERATORS = {operator.name: operator for operator in SPACE.operators}
BASELINES = SPACE.baselines()
OUTSIDE_THE_SLOTS = {"rg_lru"}  # a state without keys
MIXERS = {**BASELINES, **SPACE.outside_references()}
IN_SLOTS = {name: candidate for name, candidate in BASELINES.items() if name not in OUTSIDE_THE_SLOTS}
WALKS = 40
ONE_PART = [(slot, part) for slot in SLOTS for part in known_parts(slot)]

CUSTOM_FEATURES = """
    def feature_map(self, z):
        # A map that no slot file knows.
        return self.sharpen(z) * self.temperature[...]

    def sharpen(self, z):
        return jnp.tanh(z)
"""


def mutate(operator: Operator, parent: Candidate, rng: random.Random) -> Candidate:
    mate = rng.choice(list(IN_SLOTS.values()))
    return SPACE.mutate(operator, [parent, mate][: operator.parents], rng)


@cache
def walk(seed: int) -> Candidate:
    """A baseline after one to ten random mutations."""
    rng = random.Random(seed)
    candidate = rng.choice(list(IN_SLOTS.values()))
    for _ in range(rng.randint(1, 10)):
        try:
            candidate = mutate(rng.choice(SPACE.operators), candidate, rng)
        except NotApplicable:
            continue
    return candidate


def with_own_features(source: str) -> str:
    """A hand-written child: a feature map with a helper and a field of its own."""
    source = with_parts(source, [known_parts("feature_map")["silu"]])
    source = re.sub(r"\n    def feature_map.*?\n(?=\n)", lambda _: CUSTOM_FEATURES, source, flags=re.DOTALL)
    field = "        self.temperature = nnx.Param(jnp.ones((self.key_dim,)))  # one per channel\n"
    return source.replace("        self.output =", field + "        self.output =")


def assert_trains(source: str) -> None:
    """Runs with finite outputs, and a finite gradient for every parameter."""
    mixer_class = load_mixer(source)
    x = jax.random.normal(jax.random.key(0), (2, 3, 16))

    @jax.jit  # all in one program: run one by one, each operation would be compiled for each layout's shapes
    def gradient_and_output() -> tuple[nnx.State, jax.Array]:
        graph, params = nnx.split(mixer_class(16, 2, rngs=nnx.Rngs(0)))

        def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
            y = nnx.merge(graph, params)(x)
            return jnp.sum(jnp.sin(y)), y

        return jax.grad(loss, has_aux=True)(params)

    gradient, y = gradient_and_output()
    assert y.shape == x.shape and np.all(np.isfinite(y))
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(leaf), jax.tree_util.keystr(path)


def assert_tidy(source: str) -> None:
    """No method and no field that nothing reads, and no part that the grammar does not know."""
    mixer = Mixer(source)
    fields = {name for targets in mixer.fields for name in targets}
    assert fields | set(mixer.methods) - {"__init__", "__call__", "step"} == self_reads(mixer.cls)
    assert CUSTOM not in SPACE.describe(source).values(), SPACE.describe(source)


def test_the_space_imports_no_jax() -> None:
    code = "import sys, search_spaces.linear_attention.space as s; s.SPACE.baselines(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engine_can_load_the_space() -> None:
    assert load_space("search_spaces.linear_attention.space") is SPACE
    assert SPACE.reference in BASELINES


@pytest.mark.parametrize("name", IN_SLOTS)
def test_a_baseline_is_made_of_known_parts_alone(name: str) -> None:
    assert_tidy(BASELINES[name].source)


@pytest.mark.parametrize("name", OUTSIDE_THE_SLOTS)
def test_a_baseline_outside_the_slots_says_why(name: str) -> None:
    assert "Not in the slots' shape:" in BASELINES[name].source
    for operator in SPACE.operators:
        with pytest.raises(NotApplicable):
            mutate(operator, BASELINES[name], random.Random(0))


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_says_what_it_computes_and_what_was_simplified(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(MIXERS[name].source)) or ""
    assert "https://arxiv.org/abs/" in docstring
    assert re.search(r"^    .*_t\b.*= ", docstring, re.MULTILINE), "the update rule"
    assert name == "softmax_attention" or ("Canonical" in docstring and "Simplified:" in docstring)


def test_families_are_told_apart() -> None:
    families = {name: SPACE.family(candidate.source) for name, candidate in BASELINES.items()}
    assert families == {
        "deltanet": "delta, no decay",
        "deltaproduct": "two-step delta, decay per head",
        "gated_deltanet": "delta, decay per head",
        "gla": "additive, decay per channel",
        "hgrn2": "additive, decay per channel",
        "kda": "delta, decay per channel",
        "linear_attention": "additive, no decay",
        "mamba2": "additive, decay per head",
        "mlstm": "normalised, decay per head",
        "retnet": "additive, decay per head",
        "rg_lru": CUSTOM,
        "rwkv6": "additive, decay per channel",
        "rwkv7": "channel-wise delta, decay per channel",
        "window_hybrid": "delta, decay per head",
    }
    assert SPACE.family("class Other: ...") == CUSTOM
    assert set(SPACE.describe("x = (").values()) == {CUSTOM}


@pytest.mark.parametrize("name", IN_SLOTS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_gives_another_sound_candidate_or_says_why_not(operator: str, name: str) -> None:
    for seed in range(5):
        try:
            child = mutate(OPERATORS[operator], BASELINES[name], random.Random(seed))
        except NotApplicable as reason:
            assert str(reason)
            continue
        assert child == mutate(OPERATORS[operator], BASELINES[name], random.Random(seed))
        assert child.id not in child.parents
        assert (child.operator, child.proposer) == (operator, "grammar")
        assert child.motivation and child.parents[0] == BASELINES[name].id
        assert_tidy(child.source)


def valid(parts: dict[str, Part], chosen: Part) -> dict[str, Part]:
    """`parts` with `chosen` and what it needs, and the simplest part wherever another now lacks what it needs."""
    after = {**parts, **{part.slot: part for part in [chosen, *remedies(parts, [chosen])]}}
    given = {gift for part in after.values() for gift in part.gives}
    for slot, part in after.items():
        if not given.issuperset(part.needs):
            after[slot] = known_parts(slot)[SLOTS[slot].simplest]
    reads_strength = "strength" in after["write_rule"].needs
    return after if reads_strength else {**after, "strength": known_parts("strength")["off"]}


def names(parts: dict[str, Part]) -> dict[str, str]:
    return {slot: part.name for slot, part in parts.items()}


@pytest.mark.parametrize(("slot", "part"), ONE_PART)
def test_a_part_is_recognised_where_it_was_put(slot: str, part: str) -> None:
    base = "gated_deltanet" if slot == "strength" and part != "off" else "retnet"
    before = parts_of(BASELINES[base].source)
    after = valid(before, known_parts(slot)[part])
    source = with_parts(BASELINES[base].source, [after[name] for name in after if after[name] != before[name]])
    assert SPACE.describe(source) == names(after)
    assert_tidy(source)


@pytest.mark.parametrize(("slot", "part"), ONE_PART)
def test_putting_a_part_in_and_the_old_one_back_gives_the_old_program(slot: str, part: str) -> None:
    source = BASELINES["gated_deltanet" if slot == "strength" and part != "off" else "retnet"].source
    before = parts_of(source)
    after = valid(before, known_parts(slot)[part])
    changed = [name for name in after if after[name] != before[name]]
    there = with_parts(source, [after[name] for name in changed])
    back = with_parts(there, [before[name] for name in changed])
    assert SPACE.describe(back) == SPACE.describe(source)
    assert lines(back) == lines(source)


def lines(source: str) -> list[str]:
    """The statements of a program, in no order: what comes back may come back elsewhere."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            entries = sorted(zip(node.keys, node.values, strict=True), key=lambda entry: ast.unparse(entry[0]))
            node.keys, node.values = [key for key, _ in entries], [value for _, value in entries]
    return sorted(ast.unparse(tree).splitlines())


@pytest.mark.parametrize("number", range(max(len(known_parts(slot)) for slot in SLOTS)))
def test_every_part_trains(number: int) -> None:
    """One candidate of all first parts, one of all second parts, ..., until every part was in one."""
    parts = parts_of(BASELINES["gated_deltanet"].source)
    columns = {slot: list(known_parts(slot).values()) for slot in SLOTS if slot != "strength"}
    for column in columns.values():
        parts = valid(parts, column[number % len(column)])
    strengths = list(known_parts("strength").values())[1:]
    if "strength" in parts["write_rule"].needs:
        parts = valid(parts, strengths[number % len(strengths)])
    source = with_parts(BASELINES["gated_deltanet"].source, parts.values())
    assert SPACE.describe(source) == names(parts)
    assert_trains(source)


STRENGTHS = [name for name, part in known_parts("strength").items() if part.gives]
VALID_WRITES = [
    (rule, strength)
    for rule, part in known_parts("write_rule").items()
    for strength in (STRENGTHS if "strength" in part.needs else ["off"])
    if not ("strength to one" in part.needs and strength == "signed")
]


def mixer_of(*chosen: tuple[str, str]) -> nnx.Module:
    """Gated DeltaNet with these parts, and a decay that is the same for every token."""
    parts = parts_of(BASELINES["gated_deltanet"].source)
    for slot, part in [("decay", "learned"), *chosen]:
        parts = valid(parts, known_parts(slot)[part])
    source = with_parts(BASELINES["gated_deltanet"].source, parts.values())
    assert set(chosen) <= set(SPACE.describe(source).items())
    return load_mixer(source)(16, 2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("rule", "strength"), VALID_WRITES)
def test_no_write_rule_that_the_grammar_allows_makes_the_state_explode(rule: str, strength: str) -> None:
    """One token again and again, its gates wide open: what is unstable grows like a power of the time."""
    chosen = [("write_rule", rule), ("readout", "plain")]
    mixer = mixer_of(*chosen, *([("strength", strength)] if strength != "off" else []))
    graph, params = nnx.split(mixer)
    params = jax.tree.map(lambda x: x + jnp.abs(x), params)  # strengths to their most
    run = jax.jit(lambda params: nnx.merge(graph, params)(jnp.full((1, 512, 16), 3.0)))
    for log_rate in (-9.0, 0.0, 2.0):  # almost all is kept, a third, almost nothing
        if "log_rate" in params:
            params["log_rate"] = jax.tree.map(lambda x, rate=log_rate: jnp.full_like(x, rate), params["log_rate"])
        y = np.abs(run(params))  # NumPy's maximum is NaN where one is; XLA's may not be
        early, late = y[:, :64].max(), y[:, 64:].max()
        assert late < 64 * early, log_rate  # an additive state grows with time, and no faster


@pytest.mark.parametrize("rule", [n for n, part in known_parts("write_rule").items() if "keys met whole" in part.gives])
def test_rotary_positions_know_distances_and_no_places(rule: str) -> None:
    mixer = mixer_of(("write_rule", rule), ("position", "rotary"))
    x = jax.random.normal(jax.random.key(0), (2, 20, 16))
    state = mixer.init_state(2)
    y, later = (jax.jit(mixer.forward)(x, {**state, "position": state["position"] + shift})[0] for shift in (0, 7))
    assert float(jnp.max(jnp.abs(y - later))) < 1e-4 * float(jnp.max(jnp.abs(y)))


def test_rotary_positions_make_way_for_a_rule_that_takes_keys_apart() -> None:
    child = with_parts_of(BASELINES["retnet"], "write_rule", "bonus")
    assert SPACE.describe(child)["position"] == "off" != SPACE.describe(BASELINES["retnet"].source)["position"]
    with pytest.raises(NotApplicable, match="needs heads decay as one"):
        mutate(OPERATORS["position"], BASELINES["rwkv7"], random.Random(0))


def with_parts_of(parent: Candidate, slot: str, name: str) -> str:
    part = known_parts(slot)[name]
    return with_parts(parent.source, [part, *remedies(parts_of(parent.source), [part])])


def test_unit_values_are_no_unit_keys() -> None:
    """A normalisation elsewhere does not make the delta rule stable."""
    source = BASELINES["gated_deltanet"].source.replace("ops.rms_norm(y)", "ops.l2_normalize(y)")
    assert SPACE.describe(source)["readout"] == CUSTOM
    for seed in range(8):
        child = mutate(OPERATORS["normalize"], Candidate(source, "hand"), random.Random(seed))
        assert SPACE.describe(child.source)["normalize"] == "unit keys"


def test_random_walks_stay_tidy_and_clean(tmp_path) -> None:
    sources = {walk(seed).source for seed in range(WALKS)}
    assert len(sources) > WALKS // 2
    for number, source in enumerate(sorted(sources)):
        compile(source, "candidate", "exec")
        assert_tidy(source)
        (tmp_path / f"candidate_{number}.py").write_text(source)
    command = ["ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I,UP,B,SIM,RUF,PIE,C4", str(tmp_path)]
    checked = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("seed", range(6))
def test_a_random_walk_ends_in_a_mixer_that_trains(seed: int) -> None:
    assert_trains(walk(seed).source)


def test_erasing_always_has_unit_keys_and_tied_writes_a_decay() -> None:
    for seed in range(WALKS):
        parts = parts_of(walk(seed).source)
        given = {gift for part in parts.values() for gift in part.gives}
        assert given.issuperset(need for part in parts.values() for need in part.needs)


def test_choosing_the_delta_rule_brings_unit_keys() -> None:
    source = BASELINES["retnet"].source
    for seed in range(20):
        child = mutate(OPERATORS["write_rule"], BASELINES["retnet"], random.Random(seed))
        if "delta" in SPACE.family(child.source):
            assert SPACE.describe(child.source)["normalize"] == "l2" != SPACE.describe(source)["normalize"]
            return
    pytest.fail("twenty draws never chose a delta rule")


def test_comments_and_formatting_elsewhere_survive() -> None:
    source = BASELINES["gated_deltanet"].source.replace(
        "        return jax.nn.sigmoid(self.strength(x))\n",
        "        # Why: a hand wrote this.\n        return jax.nn.sigmoid(\n            self.strength(x)\n        )\n",
    )
    child = mutate(OPERATORS["readout"], Candidate(source, "hand"), random.Random(0))
    assert "        # Why: a hand wrote this.\n        return jax.nn.sigmoid(\n" in child.source


def test_a_custom_part_is_told_kept_inherited_and_replaced_whole() -> None:
    own = Candidate(with_own_features(BASELINES["retnet"].source), "hand")
    assert SPACE.describe(own.source)["feature_map"] == CUSTOM
    assert_trains(own.source)

    kept = mutate(OPERATORS["decay"], own, random.Random(0))
    assert "# A map that no slot file knows." in kept.source and "# one per channel" in kept.source

    heir = with_parts(BASELINES["gla"].source, [parts_of(own.source)["feature_map"]])
    assert "def sharpen" in heir and "self.temperature" in heir
    assert_trains(heir)

    replaced = mutate(OPERATORS["feature_map"], own, random.Random(0))
    assert "sharpen" not in replaced.source and "temperature" not in replaced.source
    assert_tidy(replaced.source)


FOREIGN = Candidate((Path(__file__).parent / "foreign.txt").read_text(), "hand")


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_others_wrote_is_changed_in_its_slots_and_kept_around_them(operator: str) -> None:
    refusals = {
        "strength": "nothing in this candidate reads `self.write_strength`",
        "convolution": "line .* holds more than one statement",
        "layout": "in another way",
        "position": "needs keys met whole",  # who knows what another update does with them
    }
    if operator in refusals:
        with pytest.raises(NotApplicable, match=refusals[operator]):
            mutate(OPERATORS[operator], FOREIGN, random.Random(0))
        return
    for seed in range(4):
        child = mutate(OPERATORS[operator], FOREIGN, random.Random(seed))
        assert all(text in child.source for text in ("# squash", "# tokens seen"))
        assert "age" in (Mixer(child.source).state or {})
        compile(child.source, "candidate", "exec")
    assert_trains(child.source)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def broken(:", "does not parse"),
        ("x = 1", "no class `TokenMixer`"),
        ("class TokenMixer: ...", "has no `__init__`"),
        (
            "class TokenMixer:\n    def __init__(self):\n        self.a = 1\n\n    def __call__(self, x):\n"
            "        return x\n",
            "has no method `forward`|needs",
        ),
    ],
)
def test_what_has_not_the_slots_shape_is_refused_with_a_reason(source: str, reason: str) -> None:
    for operator in SPACE.operators:
        with pytest.raises(NotApplicable, match=reason):
            mutate(operator, Candidate(source, "llm"), random.Random(0))


GATED = SPACE.baselines()["gated_deltanet"].source
SLOT = "        return ops.l2_normalize(q), ops.l2_normalize(k)\n"
HOSTILE_SOURCES = {
    "nothing": "",
    "no Python": "class TokenMixer(:",
    "a null byte": GATED.replace(SLOT, SLOT + "\0"),
    "a deep sum": GATED.replace(SLOT, f"        z = {' + '.join(['q'] * 3000)}\n{SLOT}"),
    "a deep chain": GATED.replace(SLOT, f"        z = q{'.a' * 3000}\n{SLOT}"),
    "deep brackets": GATED.replace(SLOT, f"        z = {'(' * 150}q{')' * 150}\n{SLOT}"),
    "a long number": GATED.replace(SLOT, f"        z = 0x{'f' * 6000}\n{SLOT}"),
    "a form feed": GATED.replace(SLOT, f"        z = 1\f\n{SLOT}"),
    "a line separator": GATED.replace(SLOT, f"        z = '\u2028'\n{SLOT}"),
    "a next line": GATED.replace(SLOT, f"        z = '\x85'\n{SLOT}"),
    "many docstrings": GATED + "'a string'\n" * 1_000,
}


@pytest.mark.parametrize("source", HOSTILE_SOURCES.values(), ids=HOSTILE_SOURCES)
def test_any_text_is_described(source: str) -> None:
    """The engine asks for it in its own process, of whatever was proposed: an exception would end the search."""
    began = time.monotonic()
    assert set(SPACE.describe(source)) == set(SLOTS)
    assert isinstance(SPACE.family(source), str) and isinstance(SPACE.lacks(source), list)
    for operator in SPACE.operators:
        parents = [Candidate(source, "hand"), SPACE.baselines()["gla"]]
        with contextlib.suppress(NotApplicable):
            SPACE.mutate(operator, parents[: operator.parents], random.Random(0))
    assert time.monotonic() - began < 20
