"""The grammar: every operator, on every baseline and along random walks, gives a sound candidate or says why not."""

import ast
import random
import re
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nas.loading import load_mixer
from nas.space import NotApplicable, load_space
from nas.types import Candidate, Operator
from search_spaces.linear_attention.grammar import Mixer, parts_of, self_reads, with_parts
from search_spaces.linear_attention.parts import CUSTOM, SLOTS, known_parts
from search_spaces.linear_attention.space import SPACE

OPERATORS = {operator.name: operator for operator in SPACE.operators}
BASELINES = SPACE.baselines()
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
    mate = rng.choice(list(BASELINES.values()))
    return SPACE.mutate(operator, [parent, mate][: operator.parents], rng)


@cache
def walk(seed: int) -> Candidate:
    """A baseline after one to ten random mutations."""
    rng = random.Random(seed)
    candidate = rng.choice(list(BASELINES.values()))
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


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_made_of_known_parts_alone(name: str) -> None:
    assert_tidy(BASELINES[name].source)


def test_families_are_told_apart() -> None:
    families = {name: SPACE.family(candidate.source) for name, candidate in BASELINES.items()}
    assert families == {
        "deltanet": "delta, no decay",
        "gated_deltanet": "delta, decay per head",
        "gla": "additive, decay per channel",
        "linear_attention": "additive, no decay",
        "mamba2": "additive, decay per head",
        "retnet": "additive, decay per head",
    }
    assert SPACE.family("class Other: ...") == CUSTOM
    assert set(SPACE.describe("x = (").values()) == {CUSTOM}


@pytest.mark.parametrize("name", BASELINES)
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


@pytest.mark.parametrize(("slot", "part"), ONE_PART)
def test_a_part_is_recognised_where_it_was_put(slot: str, part: str) -> None:
    source = with_parts(BASELINES["gated_deltanet"].source, [known_parts(slot)[part]])
    assert SPACE.describe(source) == {**SPACE.describe(BASELINES["gated_deltanet"].source), slot: part}


@pytest.mark.parametrize(("slot", "part"), ONE_PART)
def test_putting_a_part_in_and_the_old_one_back_gives_the_old_program(slot: str, part: str) -> None:
    before = BASELINES["retnet"].source
    after = with_parts(with_parts(before, [known_parts(slot)[part]]), [parts_of(before)[slot]])
    assert SPACE.describe(after) == SPACE.describe(before)
    assert sorted(ast.unparse(ast.parse(after)).splitlines()) == sorted(ast.unparse(ast.parse(before)).splitlines())


@pytest.mark.parametrize("number", range(max(len(known_parts(slot)) for slot in SLOTS)))
def test_every_part_trains(number: int) -> None:
    """One candidate of all first parts, one of all second parts, ..., until every part was in one."""
    columns = {slot: list(known_parts(slot).values()) for slot in SLOTS}
    parts = {slot: column[number % len(column)] for slot, column in columns.items()}
    if "unit keys" in parts["write_rule"].needs and not parts["normalize"].gives:
        parts["normalize"] = known_parts("normalize")["l2"]
    source = with_parts(BASELINES["gated_deltanet"].source, parts.values())
    assert SPACE.describe(source) == {slot: part.name for slot, part in parts.items()}
    assert_trains(source)


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
        "        beta = jax.nn.sigmoid(self.strength(x))\n",
        "        # Why: a hand wrote this.\n        beta = jax.nn.sigmoid(\n            self.strength(x)\n        )\n",
    )
    child = mutate(OPERATORS["readout"], Candidate(source, "hand"), random.Random(0))
    assert "        # Why: a hand wrote this.\n        beta = jax.nn.sigmoid(\n" in child.source


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
