import ast
import io
import itertools
import random
import tokenize

import pytest
from rapidfuzz.distance import Indel

from nas.llm.similarity import nearest, normal_tokens
from search_spaces.linear_attention.space import SPACE

BASELINES = {name: candidate.source for name, candidate in SPACE.baselines().items()}
FIXED = {"__init__", "__call__", "init_state", "step"}
each_baseline = pytest.mark.parametrize("source", BASELINES.values(), ids=BASELINES)


def similarity(one, other):
    return Indel.normalized_similarity(normal_tokens(one), normal_tokens(other))


def renamed(source):
    """With every argument, local name, field and method of the module's own called otherwise, token by token."""
    nodes = list(ast.walk(ast.parse(source)))
    local = {node.arg for node in nodes if isinstance(node, ast.arg)} - {"self"}
    local |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    fields = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    fields |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)} - FIXED
    words, before = [], ["", ""]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        of_self = before == ["self", "."] or before[1] == "def"
        of_another = before[1] == "." and not of_self
        by_name = token.line[token.end[1] :].startswith("=")  # f(rngs=...): these functions are not the module's own
        own = token.string in (fields if of_self else local) and not of_another and not by_name
        words.append((token.type, f"other_{token.string}" if own else token.string))
        before = [before[1], token.string]
    return tokenize.untokenize(words)


def reformatted(source):
    return "# a comment\n" + ast.unparse(ast.parse(source)).replace("    ", "\t") + "\n\n# another\n"


def without_docstrings(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.parse("'''Something else.'''").body[0]
    return ast.unparse(tree)


def with_other_numbers(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            node.value = node.value + 1
    return ast.unparse(tree)


@each_baseline
@pytest.mark.parametrize("change", [renamed, reformatted, without_docstrings, with_other_numbers])
def test_names_formatting_docstrings_and_numbers_are_no_difference(source, change):
    changed = change(source)
    assert changed != source
    assert normal_tokens(changed) == normal_tokens(source)


@each_baseline
@pytest.mark.parametrize(
    ("call", "other"),
    [("jax.nn.sigmoid", "jax.nn.softplus"), ("jax.nn.silu", "jax.nn.gelu"), ("ops.rms_norm", "ops.layer_norm")],
)
def test_another_call_is_a_small_difference(source, call, other):
    if call not in source:
        pytest.skip("makes no such call")
    assert 0.99 < similarity(source, source.replace(call, other, 1)) < 1.0


def test_imports_are_told_by_what_they_import():
    one = "import jax.numpy as jnp\nfrom jax.nn import silu\ndef f(x): return silu(jnp.tanh(x))"
    assert normal_tokens(one) == normal_tokens("import jax\ndef f(y): return jax.nn.silu(jax.numpy.tanh(y))")
    assert normal_tokens(one) != normal_tokens(one.replace("jax.nn import silu", "jax.nn import relu as silu"))


def test_exchanged_names_are_a_difference():
    one = """class TokenMixer:
    def f(self, q, k): return self.a(q) @ self.b(k)
    def a(self, x): return x
    def b(self, x): return -x"""
    assert similarity(one, one.replace("self.a(q) @ self.b(k)", "self.b(q) @ self.a(k)")) < 1.0
    assert similarity(one, one.replace("self.a(q) @ self.b(k)", "self.a(k) @ self.b(q)")) < 1.0


def test_arguments_by_name_of_own_functions_are_names_too():
    one = "def f(x, *, scale): return x * scale\ndef g(x): return f(x, scale=x)"
    assert normal_tokens(one) == normal_tokens(one.replace("scale", "size"))
    assert normal_tokens("def g(x): return h(x, scale=x)") != normal_tokens("def g(x): return h(x, size=x)")


def test_one_more_name_leaves_the_names_of_other_functions():
    source = BASELINES["gated_deltanet"]
    longer = source.replace("        state = dict(state)\n", "        first = x\n        state = dict(state)\n")
    assert 0.97 < similarity(source, longer) < 1.0


def test_no_two_baselines_are_alike():
    tokens = [normal_tokens(source) for source in BASELINES.values()]
    assert max(itertools.starmap(Indel.normalized_similarity, itertools.combinations(tokens, 2))) < 0.95


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x",
        "x = '\\ud800'",
        "x = " + "-" * 3000 + "1",
        "x = " + "(" * 90 + ")" * 90,
        "match x:\n case {'a': b}: b",
        "(",
        "async def f(): await g()",
        "f'{x!r:>{y}}'",
        "try: x\nexcept* E as e: e",
        "global x",
        "(y := 3)",
        "lambda *a, **k: a",
    ],
)
def test_odd_sources_have_tokens_too(source):
    assert normal_tokens(source) == normal_tokens(source)


def test_the_nearest_is_found_with_its_similarity():
    tokens = {name: normal_tokens(source) for name, source in BASELINES.items()}
    for name, own in tokens.items():
        assert nearest(own, tokens) == (name, 1.0)
    others = {name: own for name, own in tokens.items() if name != "gated_deltanet"}
    name, found = nearest(tokens["gated_deltanet"], others)
    assert (name, found) == ("kda", Indel.normalized_similarity(tokens["gated_deltanet"], tokens["kda"]))
    assert nearest(tokens["gated_deltanet"], others, at_least=0.95) is None
    assert nearest((), {}) is None


def test_the_first_of_equals_is_the_nearest():
    assert nearest(("a",), {"z": ("a",), "b": ("a",)}) == ("z", 1.0)


@pytest.mark.parametrize("at_least", [0.0, 0.8, 0.95])
def test_what_is_left_uncompared_could_not_have_been_nearest(at_least):
    rng = random.Random(0)
    others = {str(i): tuple(rng.choices("ab", k=rng.randrange(30))) for i in range(200)}
    for _ in range(20):
        tokens = tuple(rng.choices("ab", k=rng.randrange(1, 30)))
        best = max(Indel.normalized_similarity(tokens, other) for other in others.values())
        found = nearest(tokens, others, at_least)
        assert (found[1] if found else None) == (best if best >= at_least else None)
