"""Probe tasks: each answer against a slow definition of its own, and what must hold of every task."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas.tasks.fuzzy_recall import FuzzyRecall
from nas.tasks.memorization import Memorization
from nas.tasks.mqar import Mqar, _gaps
from nas.tasks.probe import Examples, Probe
from nas.tasks.probes import PROBES
from nas.tasks.recall import Recall
from nas.tasks.word_problem import WordProblem, cycles

SIZES = [(name, size) for name in PROBES for size in ("tiny", "published")]
Answers = dict[int, int]  # place -> the answer there


def drawn(probe: Probe, count: int = 8, time: int | None = None, seed: int = 0) -> Examples:
    return probe.sample(np.random.default_rng(seed), count, time or probe.time)


# The slow definitions: (probe, tokens of one example and the one after them) -> the answers that follow from them


def recalled(probe: Recall, tokens: list[int]) -> Answers:
    values: dict[int, int] = {}
    answers: Answers = {}
    for at in range(0, len(tokens) - 1, 2):
        key, value = tokens[at : at + 2]
        if key < 2 * probe.keys:  # else both are noise
            if key in values:
                answers[at] = values[key]
            assert probe.keys <= value < 2 * probe.keys and key < probe.keys
            assert values.setdefault(key, value) == value, "a key keeps its value"
    return answers


def fuzzily_recalled(probe: FuzzyRecall, tokens: list[int]) -> Answers:
    values: dict[tuple[int, ...], tuple[int, ...]] = {}
    answers: Answers = {}
    at = next(at for at, token in enumerate(tokens) if token != probe.vocabulary - 1)
    while at < len(tokens):
        key, at = _run(tokens, at, lambda token: token < probe.symbols)
        start = at
        value, at = _run(tokens, at, lambda token: probe.symbols <= token < 2 * probe.symbols)
        assert 1 <= len(set(key)) == len(key) <= probe.motif and 1 <= len(set(value)) == len(value) <= probe.motif
        if key in values:
            answers |= {start + place - 1: token for place, token in enumerate(values[key])}
        assert values.setdefault(key, value) == value
    assert start - 1 in answers, "the last pair is an earlier one"
    return answers


def _run(tokens: list[int], at: int, belongs: Callable[[int], bool]) -> tuple[tuple[int, ...], int]:
    end = at
    while end < len(tokens) and belongs(tokens[end]):
        end += 1
    return tuple(tokens[at:end]), end


def copied(probe: Any, tokens: list[int]) -> Answers:
    blank, copy = probe.vocabulary - 2, probe.vocabulary - 1
    start = tokens.index(copy)
    told = [token for token in tokens[:start] if token != blank]
    assert len(told) == probe.copied and set(tokens[start + 1 : -1]) == {blank}
    return {start + 1 + place: token for place, token in enumerate(told)}


def said_again(probe: Any, tokens: list[int]) -> Answers:
    start = tokens.index(probe.vocabulary - 1)
    return {start + place: tokens[place] for place in range(start)}


def remembered(probe: Memorization, tokens: list[int]) -> Answers:
    insert = probe.vocabulary - 1
    return {at: int(probe.facts[tokens[at - 1]]) for at, token in enumerate(tokens[:-1]) if token == insert}


def queried(probe: Mqar, tokens: list[int]) -> Answers:
    shown = 2 * probe.pairs
    values = dict(zip(tokens[0:shown:2], tokens[1:shown:2], strict=True))
    answers = {at: values[token] for at, token in enumerate(tokens[:-1]) if at >= shown and token in values}
    assert sorted(tokens[at] for at in answers) == sorted(values) and len(values) == probe.pairs, "each key once"
    return answers


def induced(probe: Any, tokens: list[int]) -> Answers:
    """What came after a token the last time."""
    answers: Answers = {}
    for at, token in enumerate(tokens[:-1]):
        earlier = [place for place in range(at) if tokens[place] == token]
        if earlier:
            answers[at] = tokens[earlier[-1] + 1]
    return answers


def odd(probe: Any, tokens: list[int]) -> Answers:
    return {at: sum(tokens[: at + 1]) % 2 for at in range(len(tokens) - 1)}


def composed(probe: WordProblem, tokens: list[int]) -> Answers:
    """Five things are moved about, one permutation after the other."""
    things = list(range(5))
    names = [tuple(element) for element in probe.elements.tolist()]
    answers: Answers = {}
    for at, token in enumerate(tokens[:-1]):
        things = [names[token][thing] for thing in things]
        answers[at] = names.index(tuple(things))
    return answers


SLOW: dict[str, Callable[[Any, list[int]], Answers]] = {
    "in_context_recall": recalled,
    "fuzzy_recall": fuzzily_recalled,
    "noisy_recall": recalled,
    "selective_copying": copied,
    "compression": said_again,
    "memorization": remembered,
    "mqar": queried,
    "induction": induced,
    "parity": odd,
    "s5": composed,
    "a5": composed,
}
SHIFTED = ("in_context_recall", "fuzzy_recall", "noisy_recall", "induction")


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_answer_is_right_and_nowhere_else_is_one_scored(name: str, size: str) -> None:
    probe = PROBES[name].at(size).probe
    for time in probe.scored_times[:2]:
        examples = drawn(probe, 4, time)
        for tokens, targets, weights in zip(*(array.tolist() for array in examples[:3]), strict=True):
            # With next-token targets the last one is a token too, which may end what the slow definition reads.
            after = targets[-1] if name in SHIFTED else 0
            answers = SLOW[name](probe, [*tokens, after])
            assert {at: targets[at] for at, weight in enumerate(weights) if weight} == answers


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_examples_have_the_shape_and_the_vocabulary_that_they_say(name: str, size: str) -> None:
    probe = PROBES[name].at(size).probe
    for time in probe.scored_times:
        tokens, targets, weights, trained = drawn(probe, 3, time)
        assert tokens.shape == targets.shape == weights.shape == trained.shape == (3, time)
        assert (tokens.dtype, targets.dtype, weights.dtype, trained.dtype) == tuple("iiff")
        for numbers in (tokens, targets):
            assert numbers.min() >= 0 and numbers.max() < probe.vocabulary
        assert set(np.unique([weights, trained])) <= {0.0, 1.0} and (weights.sum(axis=1) > 0).all()
        assert (trained >= weights).all(), "what is scored is trained"
    assert 0 < probe.chance <= 0.5 and probe.time == probe.scored_times[0]


@pytest.mark.parametrize("name", PROBES)
def test_a_seed_fixes_the_examples(name: str) -> None:
    first, again, other = (drawn(PROBES[name].tiny.probe, seed=seed) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first.tokens, other.tokens)


@pytest.mark.parametrize("time", [31, 32, 33])
@pytest.mark.parametrize("name", PROBES)
def test_any_length_has_right_answers(name: str, time: int) -> None:
    probe = PROBES[name].tiny.probe
    probe = replace(probe, pairs=4) if isinstance(probe, Mqar) else probe
    tokens, targets, weights, _ = (array.tolist() for array in drawn(probe, 4, time))
    for row in range(4):
        answers = SLOW[name](probe, [*tokens[row], targets[row][-1] if name in SHIFTED else 0])
        found = {at: targets[row][at] for at, weight in enumerate(weights[row]) if weight}
        # An odd one out at the end of a compression is not asked for.
        assert found == {at: answers[at] for at in found} and len(found) >= len(answers) - 1


def test_recall_is_trained_everywhere_but_on_padding() -> None:
    probe = PROBES["fuzzy_recall"].tiny.probe
    examples = drawn(probe)
    padded = examples.targets == probe.vocabulary - 1
    assert padded.any() and (examples.trained == ~padded).all()
    assert drawn(PROBES["noisy_recall"].tiny.probe).trained.all()


def test_noise_is_as_frequent_as_it_says() -> None:
    probe = PROBES["noisy_recall"].published.probe
    assert isinstance(probe, Recall)
    keys = drawn(probe, 256).tokens[:, ::2]
    assert (keys >= 2 * probe.keys).mean() == pytest.approx(probe.noise, abs=0.02)
    assert (drawn(PROBES["in_context_recall"].published.probe, 64).tokens[:, ::2] < 8).all()


def test_facts_are_the_same_in_all_examples_and_each_key_has_its_own_value() -> None:
    probe = PROBES["memorization"].published.probe
    assert isinstance(probe, Memorization)
    assert sorted(probe.facts) == list(range(probe.keys, 2 * probe.keys))
    np.testing.assert_array_equal(probe.facts, replace(probe).facts)


def test_keys_are_asked_for_soon_more_often_than_late() -> None:
    gaps = _gaps(np.random.default_rng(0), 2000, 32, 4)
    assert all(len(set(row)) == 4 for row in gaps.tolist())
    counts = np.bincount(gaps.ravel(), minlength=32)
    assert counts[0] > 2 * counts[3] > 4 * counts[30] > 0


def test_induction_can_not_look_back_over_a_fixed_distance() -> None:
    tokens = drawn(PROBES["induction"].tiny.probe, 64).tokens
    blocks = {int(np.argmax(row[1:] == row[0])) + 1 for row in tokens}
    assert blocks == set(range(8, 17))


@pytest.mark.parametrize(("name", "order", "letters"), [("s5", 120, 5), ("a5", 60, 7)])
def test_groups_are_groups(name: str, order: int, letters: int) -> None:
    """Their size, the identity first, an inverse of each, and that the few tokens of the tiny size make all of it."""
    probe = PROBES[name].tiny.probe
    assert isinstance(probe, WordProblem)
    assert len(probe.elements) == order == probe.vocabulary and probe.elements[0].tolist() == [0, 1, 2, 3, 4]
    products = probe.products
    np.testing.assert_array_equal(products[0], np.arange(order))
    assert all(sorted(row) == list(range(order)) for row in products.tolist())
    assert len(probe.letters) == letters and len(replace(probe, neighbours=False).letters) == order
    reached = set(probe.letters.tolist())
    while len(more := reached | {int(products[a, b]) for a in reached for b in probe.letters}) > len(reached):
        reached = more
    assert len(reached) == order


def test_cycles() -> None:
    assert cycles((1, 0, 2, 4, 3)) == [2, 2, 1] and cycles((1, 2, 3, 4, 0)) == [5]
