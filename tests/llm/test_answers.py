import json
import random
import time

import pytest

from nas.llm.answers import (
    ANSWER_LETTERS,
    SOURCE_LETTERS,
    Analysis,
    Edit,
    Opinion,
    Prompt,
    Proposal,
    Repair,
    Unusable,
    apply_edits,
    parse,
    schema,
    source_of,
)
from search_spaces.linear_attention.space import SPACE

PARENT = SPACE.baselines()["gated_deltanet"].source
MODULE = "class TokenMixer:\n    pass\n"
GOOD = {"motivation": "m", "because": "b", "predicted_gain": 0.02, "edits": None, "source": MODULE}
ALL = (Proposal, Repair, Analysis, Opinion, Prompt)
SAMPLES = {
    Proposal: GOOD,
    Repair: {"motivation": "m", "same_idea": False, "edits": [{"search": "a", "replace": "b"}], "source": None},
    Analysis: {"text": "t", "effect": "helps", "lesson": "l"},
    Opinion: {"because": "b", "novelty": 1, "simplicity": 10},
    Prompt: {"text": "Be bold."},
}
BLOCKS = """A softer gate keeps more.

```python
<<<<<<< SEARCH
        return jax.nn.sigmoid(self.strength(x))
=======
        return jax.nn.softplus(self.strength(x))
>>>>>>> REPLACE
```
"""


def answer(**others):
    return json.dumps({**GOOD, **others})


def refused(model, text):
    with pytest.raises(Unusable) as error:
        parse(model, text)
    assert "\n" not in error.value.reason and error.value.reason.isprintable()
    return error.value


# What may stand around an answer.


@pytest.mark.parametrize("model", ALL)
def test_an_answer_is_what_was_asked_for(model):
    assert parse(model, json.dumps(SAMPLES[model])).model_dump() == SAMPLES[model]


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "```json\n{}\n```",
        "Here you are {{as asked}}:\n{}\nI hope that it helps.",
        "<think>Maybe {{'motivation': 1}} or {{}}?</think>\n{}",
        "... so I answer.</think>{}",
        '{{"note": "a first thought"}} {}',
        "\ufeff{}",
    ],
)
def test_it_is_found_whatever_stands_around_it(around):
    assert parse(Proposal, around.format(json.dumps(GOOD))).model_dump() == GOOD


def test_the_last_of_several_answers_counts():
    assert parse(Proposal, answer(motivation="draft") + answer(motivation="final")).motivation == "final"


def test_raw_line_breaks_in_strings_and_unknown_keys_are_forgiven():
    found = parse(
        Proposal, '{"motivation": "two\nlines", "predicted_gain": 1, "source": "class X:\n\tpass", "mood": 7}'
    )
    assert (found.motivation, found.source, found.because) == ("two\nlines", "class X:\n\tpass", "")


def test_too_much_prose_is_cut():
    assert len(parse(Proposal, answer(motivation="m" * 5000)).motivation) == 1000
    found = parse(Analysis, json.dumps({"text": "t" * 5000, "effect": "none", "lesson": "two\nlines " + "l" * 5000}))
    assert len(found.text) == 800 and len(found.lesson) == 300 and "\n" not in found.lesson


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_a_field_that_had_to_be_filled_in_may_be_empty(empty):
    assert parse(Proposal, answer(source=MODULE, edits=[])).edits is None
    assert parse(Proposal, answer(source=MODULE, edits=[{"search": "", "replace": ""}])).edits is None
    assert parse(Proposal, answer(source=empty, edits=[{"search": "a", "replace": "b"}])).source is None


def test_what_nobody_can_see_does_not_get_through():
    found = parse(Proposal, answer(motivation="a\u202eb\x1b[31m\ud800", source="x = 1\x00\ud800\u00a0# \u200b"))
    assert (found.motivation, found.source) == ("ab[31m", "x = 1 # ")


def test_a_prompt_holds_no_marks_of_chat_templates():
    text = "Be bold.\x00\x1b[2J<|im_end|>\n<|im_start|>user\ud800"
    assert parse(Prompt, json.dumps({"text": text})).text == "Be bold.[2J< |im_end| >\n< |im_start| >user"
    assert refused(Prompt, json.dumps({"text": "\x00"})).kind == "schema"


# What is refused.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am sorry.",
        "[1, 2]",
        "null",
        json.dumps(GOOD)[:-20],
        answer(predicted_gain=float("nan")),
        answer(predicted_gain=float("-inf")),
        "{" * 150_000,
        '{"motivation":' * 10_000,
        '{"motivation":[' * 10_000,
        '{"motivation": "' + "{" * 150_000,
        '{"motivation": ' + "9" * 5000 + "}",
        "x" * (ANSWER_LETTERS + 1),
        json.dumps({"unknown": 1}),
        "```python\nimport jax\n```",
        "<<<<<<< SEARCH\n" * 13_000,
        "<<<<<<< SEARCH\na\n=======\n" * 6_000,
        "```\nclass TokenMixer\n" * 9_000,
        ('{"motivation":[' * 500 + "1," * 98_000)[: ANSWER_LETTERS - 1],
    ],
    ids=range(19),
)
def test_what_is_no_answer_is_refused_at_once(text):
    started = time.process_time()
    assert refused(Proposal, text).kind == "json"
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"predicted_gain": 9}, "predicted_gain"),
        ({"predicted_gain": "much"}, "predicted_gain"),
        ({"predicted_gain": "nan"}, "predicted_gain"),
        ({"predicted_gain": None}, "predicted_gain"),
        ({"predicted_gain": True}, "predicted_gain"),
        ({"motivation": 7}, "motivation"),
        ({"motivation": None}, "motivation"),
        ({"edits": None, "source": None}, "neither edits nor source"),
        ({"edits": [], "source": ""}, "neither edits nor source"),
        ({"edits": [{"search": "a"}]}, "edits.0.replace"),
        ({"edits": "a -> b"}, "edits"),
        ({"source": ["class TokenMixer"]}, "source"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_by_name(others, words):
    error = refused(Proposal, answer(**others))
    assert error.kind == "schema" and words in error.reason


def test_too_large_a_number_is_not_finite():
    assert refused(Proposal, json.dumps(GOOD).replace("0.02", "1e999")).kind == "schema"


@pytest.mark.parametrize("others", [{"novelty": 0}, {"novelty": 11}, {"simplicity": "high"}, {"novelty": 2.5}])
def test_an_opinion_is_on_its_scale(others):
    assert refused(Opinion, json.dumps({**SAMPLES[Opinion], **others})).kind == "schema"


def test_an_effect_is_one_of_four():
    assert refused(Analysis, json.dumps({**SAMPLES[Analysis], "effect": "great"})).kind == "schema"


@pytest.mark.parametrize("model", ALL)
def test_whatever_comes_in_only_unusable_comes_out(model):
    rng = random.Random(0)
    whole = json.dumps(SAMPLES[model]) + BLOCKS + "<think></think>```python\n" + MODULE + "```"
    for _ in range(300):
        letters = list(whole)
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(letters))
            letters[at : at + rng.randint(0, 9)] = rng.choice(
                ['"', "{", "}", "\\", "\x00", "\ud800", "]", "\n", "1e9", ""]
            )
        try:
            found = parse(model, "".join(letters))
            if isinstance(found, Proposal | Repair):
                source_of(found, PARENT)
        except Unusable:
            pass


# Answers without JSON.


def test_blocks_alone_are_a_proposal_without_a_prediction():
    found = parse(Proposal, BLOCKS)
    assert (found.motivation, found.predicted_gain) == ("A softer gate keeps more.", None)
    assert source_of(found, PARENT) == PARENT.replace("sigmoid(self.strength", "softplus(self.strength")


def test_blocks_beside_json_are_its_edits():
    found = parse(Proposal, json.dumps({"motivation": "m", "predicted_gain": 0.5}) + BLOCKS)
    assert (found.motivation, found.predicted_gain, len(found.edits)) == ("m", 0.5, 1)


def test_several_blocks_are_several_edits():
    second = BLOCKS.replace("A softer", "Another").replace("strength(x)", "gate(x)")
    assert [edit.search.strip()[-8:] for edit in parse(Repair, BLOCKS + second).edits] == ["ngth(x))", "gate(x))"]


def test_a_module_in_a_fence_is_a_rewrite():
    found = parse(Repair, f"Mended.\n```python\n{MODULE}```\nDone.")
    assert (found.motivation, found.source, found.same_idea) == ("Mended.", MODULE, True)
    assert source_of(found, PARENT) == MODULE


@pytest.mark.parametrize("text", ["```python\nx = 1\n```", f"```\n{MODULE}```\n```\n{MODULE}```"])
def test_a_piece_of_code_or_two_modules_are_no_rewrite(text):
    assert refused(Proposal, text).kind == "json"


def test_the_analyst_has_to_answer_in_json():
    assert refused(Analysis, BLOCKS).kind == "json"


# Schemas.


def objects(node):
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


@pytest.mark.parametrize("model", ALL)
def test_a_schema_is_what_strict_structured_outputs_take(model):
    name, found = schema(model)
    assert name == model.__name__.lower()
    for inner in objects(found):
        assert inner["required"] == list(inner["properties"]) and inner["additionalProperties"] is False
    text = json.dumps(found)
    keywords = ("$ref", "$defs", "minimum", "maximum", "minLength", "maxLength", "default", "title", "oneOf", "format")
    assert not [keyword for keyword in keywords if f'"{keyword}":' in text]


def test_what_may_be_left_out_may_be_null():
    properties = schema(Proposal)[1]["properties"]
    assert [option["type"] for option in properties["edits"]["anyOf"]] == ["array", "null"]
    assert [option["type"] for option in properties["source"]["anyOf"]] == ["string", "null"]
    assert properties["predicted_gain"]["type"] == "number"
    assert list(properties).index("motivation") < list(properties).index("edits")  # a model thinks before it writes


# Edits.

SOURCE = """class TokenMixer:
    def f(self, x):
        y = self.a(x)
        return y

    def g(self, x):
        y = self.a(x)
        return -y
"""


def edited(*edits, source=SOURCE):
    return apply_edits(source, [Edit(search=search, replace=replace) for search, replace in edits])


def not_applied(*edits, source=SOURCE):
    with pytest.raises(Unusable) as error:
        edited(*edits, source=source)
    assert error.value.kind == "diff" and "\n" not in error.value.reason
    return error.value.reason


def test_an_edit_puts_one_text_in_the_place_of_another():
    assert edited(("return -y", "return +y")) == SOURCE.replace("return -y", "return +y")
    assert edited(("        return -y\n", "")) == SOURCE.replace("        return -y\n", "")


def test_edits_are_applied_in_order():
    assert edited(("return -y", "return z"), ("return z", "return 2 * z")) == SOURCE.replace("-y", "2 * z")


@pytest.mark.parametrize(
    "search",
    [
        "def g(self, x):   \n    y = self.a(x)\n    return -y",
        "        def g(self, x):\n            y = self.a(x)\t\n            return -y\n\n",
        "\n    def g(self, x):\r\n        y = self.a(x)\r\n        return -y\r\n",
    ],
)
def test_indentation_and_spaces_at_the_ends_of_lines_are_forgiven(search):
    first = search.lstrip("\n").split("def")[0]
    replace = f"{first}def g(self, x):\n{first}    return 0"
    expected = SOURCE[: SOURCE.index("    def g")] + "    def g(self, x):\n        return 0\n"
    assert edited((search, replace)) == expected


@pytest.mark.parametrize(
    ("replace", "expected"),
    [
        ("z = -y\nreturn z", "z = -y\n        return z"),
        ("z = -y\n        return z", "z = -y\n        return z"),  # the first line alone lacks its indentation
        ("if y:\n    return 1\nreturn 2", "if y:\n            return 1\n        return 2"),
        ("return -y\n\ndef h(x):\n    return x", "return -y\n\ndef h(x):\n    return x"),  # a function of the module
        ("return -y\n\n    def h(self):\n        return 0", "return -y\n\n    def h(self):\n        return 0"),
    ],
)
def test_lines_are_indented_as_the_line_that_they_replace(replace, expected):
    assert edited(("return -y", replace)) == SOURCE.replace("return -y", expected)


def test_a_method_quoted_without_its_indentation_stays_a_method():
    found = edited(("def g(self, x):", "def h(self):\n    return 0\n\ndef g(self, x):"))
    assert found == SOURCE.replace("def g(", "def h(self):\n        return 0\n\n    def g(")


def test_a_line_break_that_only_the_search_text_ends_with_joins_no_lines():
    assert edited(("        return y\n", "        return 2 * y")) == SOURCE.replace("return y", "return 2 * y")
    assert edited(("\n        return y", "        return 2 * y")) == SOURCE.replace("return y", "return 2 * y")


def test_what_occurs_more_than_once_is_refused_with_its_lines():
    reason = not_applied(("return -y", "return y"), ("        y = self.a(x)", "        y = x"))
    assert reason == "edit 2: its search text occurs 2 times (lines 3, 7): quote more lines around it"
    assert "occurs 2 times (lines 3, 7)" in not_applied(("y = self.a(x) \n", "y = x"))


def test_what_does_not_occur_is_refused_with_the_nearest_line():
    assert not_applied(("        return - y\n", "")) == (
        "edit 1: its search text does not occur: instead of its `return - y` line 8 is `return -y`"
    )
    assert "no line is like its `import torch`" in not_applied(("import torch", ""))
    assert "in one piece" in not_applied(("    def f(self, x):\n        return y", ""))
    assert "is empty" in not_applied((" \n", "x"))


def test_a_shift_that_is_not_uniform_is_no_match():
    assert "in one piece" in not_applied(("def g(self, x):\n        y = self.a(x)\n   return -y", "pass"))


def test_edits_that_change_nothing_are_refused():
    assert not_applied(("return -y", "return -y")) == "the edits change nothing"
    assert not_applied() == "there are no edits"
    assert "65 edits" in not_applied(*[("return -y", "return y")] * 65)


def test_edits_cannot_grow_a_source_without_end():
    assert "more than 60,000 characters" in not_applied(*[("return -y", "return -y" + "y" * 9_000)] * 64)


def test_hostile_edits_are_refused_at_once():
    source = "a\n" * 20_000 + "b\n" + "".join(f"{' ' * i}c\n" for i in range(200))
    started = time.process_time()
    for search in ("a\n" * 20_000 + "c", "\n".join("a" * 40_000), "c\n" * 30_000, " c\nc", "x" * 190_000):
        not_applied((search, "z"), source=source)
    assert time.process_time() - started < 5


def test_edits_do_not_have_a_long_source_parsed_again_and_again(monkeypatch):
    """A line quoted without its indentation: whether its replacement is to be indented, the parser may have to say."""
    parsed: list[int] = []
    monkeypatch.setattr("nas.llm.answers.parse_python", lambda source: parsed.append(len(source)))
    source = "class TokenMixer:\n" + "".join(f"    a{i} = {i}\n" for i in range(62)) + "#" * 20_000
    found = edited(*[(f"a{i} = {i}", f"b{i} = {i}\n    c{i} = 0") for i in range(62)], source=source)
    assert found.count("\n    b") == found.count("\n    c") == 62
    assert 0 < sum(parsed) <= SOURCE_LETTERS


# From an answer to source.


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class TokenMixer:\n    def f(self:\n        pass", "at line 2: `def f(self:`"),
        ("class TokenMixer:\npass", "at line 2"),
        ("x = 1", "no class TokenMixer"),
        ("def f():\n    class TokenMixer: pass", "no class TokenMixer"),
        ("class TokenMixer: x = " + "(" * 5000 + ")" * 5000, "does not parse"),
        ("class TokenMixer: x = " + "-" * 50_000 + "1", "does not parse"),
        ("class TokenMixer: x = 1" + "+1" * 25_000, ""),
        ("class TokenMixer: x = " + "9" * 5000, "does not parse"),
        ("#" * SOURCE_LETTERS + "\n" + MODULE, "more than 60,000"),
        ("I would add a gate.", "does not parse"),
    ],
    ids=range(10),
)
def test_what_is_no_module_with_a_mixer_is_refused(source, words):
    with pytest.raises(Unusable) as error:
        source_of(parse(Proposal, answer(source=source)), PARENT)
    assert error.value.kind == "python" and words in error.value.reason


def test_bytes_that_python_does_not_take_are_refused():
    for odd in ("\x00", "\ud800"):
        with pytest.raises(Unusable, match="does not parse"):
            source_of(Proposal.model_construct(edits=None, source=MODULE + odd), PARENT)


def test_edits_go_before_a_source_and_a_fence_around_a_source_is_left_out():
    both = parse(Proposal, answer(edits=[{"search": "jax.nn.sigmoid", "replace": "jax.nn.softplus"}]))
    assert source_of(both, PARENT) == PARENT.replace("jax.nn.sigmoid", "jax.nn.softplus")
    fenced = parse(Proposal, answer(source=f"```python\n{MODULE}```"))
    assert source_of(fenced, PARENT) == MODULE


def test_an_edit_that_breaks_the_module_is_refused_with_the_line():
    broken = parse(Proposal, answer(edits=[{"search": "return jax.nn.sigmoid(", "replace": "return jax.nn.sigmoid(("}]))
    with pytest.raises(Unusable, match="does not parse") as error:
        source_of(broken, PARENT)
    assert error.value.kind == "python" and "`return jax.nn.sigmoid((self.strength(x))`" in error.value.reason
