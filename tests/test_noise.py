"""How far seeds differ: the two variances, their degrees of freedom, and what is kept of them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import FakeSpace, make_settings
from scipy import stats

from nas.commands import kept_noise
from nas.commands.kept_noise import keep_noise, machine_kind, noise_file, read_noise
from nas.noise import Estimate, Noise, analysis_of_variance, measured, noise_from_json, noise_to_json

RESULTS = Path(__file__).parents[1] / "results"


def table_of(values: np.ndarray) -> dict[str, dict[int, float]]:
    return {f"a{row}": dict(enumerate(map(float, scores))) for row, scores in enumerate(values)}


def planted(rng: np.random.Generator, n: int, k: int, of_seed: float, of_rest: float) -> dict[str, dict[int, float]]:
    """Architectures far apart, seeds that move all alike, and what is left."""
    return table_of(
        2 + rng.normal(0, 1, (n, 1)) + rng.normal(0, of_seed, (1, k)) + rng.normal(0, of_rest, (n, k)),
    )


@pytest.mark.parametrize(("of_seed", "of_rest"), [(0.0, 0.02), (0.02, 0.02), (0.03, 0.0)])
def test_what_was_planted_is_found(of_seed: float, of_rest: float) -> None:
    rng = np.random.default_rng(0)
    found = [analysis_of_variance(planted(rng, 4, 3, of_seed, of_rest)) for _ in range(2000)]
    score = np.mean([pair[0].variance for pair in found if pair])
    difference = np.mean([pair[1].variance for pair in found if pair])
    assert score == pytest.approx(of_seed**2 + of_rest**2, rel=0.06)
    assert difference == pytest.approx(2 * of_rest**2, rel=0.06, abs=1e-12)


@pytest.mark.parametrize("of_seed", [0.0, 0.02, 0.1])
def test_intervals_hold_what_they_say(of_seed: float) -> None:
    """Also where seeds move all architectures together, and so four repeats are hardly more than one."""
    rng, hits = np.random.default_rng(1), np.zeros(2)
    true = math.sqrt(of_seed**2 + 0.02**2), math.sqrt(2) * 0.02
    for _ in range(400):
        pair = analysis_of_variance(planted(rng, 4, 3, of_seed, 0.02))
        assert pair
        for kind, (estimate, value) in enumerate(zip(pair, true, strict=True)):
            low, high = estimate.interval()
            hits[kind] += low <= value <= high
    assert 0.925 < hits[1] / 400 < 0.975, "exact for a difference"
    assert hits[0] / 400 > 0.91, "by Satterthwaite's degrees of freedom for a score"


@pytest.mark.parametrize(("n", "k"), [(1, 2), (1, 5), (2, 2), (4, 2), (6, 3)])
def test_freedom_is_between_that_of_the_seeds_and_that_of_all_repeats(n: int, k: int) -> None:
    rng = np.random.default_rng(n * k)
    for of_seed in (0.0, 0.01, 1.0):
        pair = analysis_of_variance(planted(rng, n, k, of_seed, 0.01))
        assert pair
        assert k - 1 - 1e-9 <= pair[0].freedom <= n * (k - 1) + 1e-9
        assert pair[1].freedom == max(n - 1, 1) * (k - 1)


def test_a_score_has_the_pooled_variance() -> None:
    values = np.random.default_rng(2).normal(2, 0.1, (5, 3))
    pair = analysis_of_variance(table_of(values))
    assert pair and pair[0].variance == pytest.approx(values.var(axis=1, ddof=1).mean())
    differences = (values[:, None] - values[None]).reshape(-1, 3)[[1, 2, 3, 4, 7, 8, 9, 13, 14, 19]]
    assert pair[1].variance == pytest.approx(differences.var(axis=1, ddof=1).mean()), "over all pairs of architectures"


def test_one_architecture_tells_nothing_of_pairs() -> None:
    pair = analysis_of_variance({"a": {0: 2.0, 1: 2.1, 2: 2.2}})
    assert pair and pair[0].variance == pytest.approx(0.01) and pair[1].variance == 2 * pair[0].variance
    assert pair[0].freedom == pair[1].freedom == 2


def test_who_lacks_a_seed_is_left_out() -> None:
    whole = {"a": {0: 2.0, 1: 2.1}, "b": {0: 3.0, 1: 3.3}}
    assert analysis_of_variance({**whole, "c": {0: 9.0}}) == analysis_of_variance(whole)
    apart = analysis_of_variance({"a": {0: 2.0, 1: 2.2}, "b": {0: 3.0, 2: 3.4}})
    assert apart and apart[0].freedom == 2 and apart[0].variance == pytest.approx((0.02 + 0.08) / 2)


@pytest.mark.parametrize("table", [{}, {"a": {}}, {"a": {0: 2.0}, "b": {0: 3.0}}, {"a": {0: 2.0}, "b": {1: 3.0}}])
def test_without_repeats_nothing_is_known(table: dict[str, dict[int, float]]) -> None:
    assert analysis_of_variance(table) is None and not measured({40: table})


def test_equal_scores_have_no_noise() -> None:
    pair = analysis_of_variance({name: {0: 2.0, 1: 2.0} for name in "abc"})
    assert pair and pair[0].variance == 0 and pair[0].interval() == (0.0, 0.0)


def test_the_interval_is_the_textbooks() -> None:
    low, high = Estimate(0.04, 7).interval()
    assert low == pytest.approx(math.sqrt(7 * 0.04 / stats.chi2.ppf(0.975, 7)))
    assert high == pytest.approx(math.sqrt(7 * 0.04 / stats.chi2.ppf(0.025, 7))) and low < 0.2 < high


def test_the_figures_of_the_docstring_are_those_of_the_results() -> None:
    """Fifteen architectures, three seeds: that seeds move all of them together is measured, not assumed."""
    rows = json.loads((RESULTS / "baselines.json").read_text())["rows"]
    table = {row["name"]: {int(seed): bits for seed, bits in row["by_seed"].items()} for row in rows}
    pair = analysis_of_variance(table)
    assert pair
    score, difference = pair
    assert 0.5 < difference.deviation / score.deviation < math.sqrt(2), "pairing helps"


# What is kept


NOISE = measured({step: planted(np.random.default_rng(step), 4, 2, 0.01, 0.02) for step in (10, 40)})
SETTINGS = make_settings()


def test_it_comes_back_from_json_as_it_was() -> None:
    assert noise_from_json(json.loads(json.dumps(noise_to_json(NOISE))), (10, 40)) == NOISE
    assert noise_from_json(noise_to_json(Noise())) == Noise()


def test_what_was_measured_is_there_for_the_next_search(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "noise.jsonl"
    assert read_noise(file, SETTINGS) == (None, None)
    keep_noise(file, {"event": "trial"}, SETTINGS)
    keep_noise(file, {"event": "noise", "source": "cached", **noise_to_json(NOISE)}, SETTINGS)
    assert not file.exists()
    keep_noise(file, {"event": "noise", "source": "measured", "spared": 0, **noise_to_json(NOISE)}, SETTINGS)
    assert read_noise(file, SETTINGS) == (NOISE, None) and [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "{}", "[" * 100_000),
        json.dumps({**noise_to_json(NOISE), "score": {}}),
        json.dumps(noise_to_json(NOISE)).replace('"variance": 0', '"variance": -1'),
        json.dumps(noise_to_json(NOISE)).replace('"variance": 0', '"variance": 1e999, "x": 0'),
        json.dumps(noise_to_json(NOISE)).replace('"freedom": ', '"freedom": "a", "x": '),
    ],
)
def test_a_damaged_file_is_ignored_in_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "noise.jsonl"
    file.write_text(text)
    noise, sentence = read_noise(file, SETTINGS)
    assert noise is None and sentence and str(file) in sentence and "measured anew" in sentence


def test_a_folder_in_its_place_and_a_full_disk_cost_nothing_else(tmp_path: Path) -> None:
    assert "can't be read" in (read_noise(tmp_path, SETTINGS)[1] or "")
    keep_noise(
        Path("/proc/nothing/noise.jsonl"), {"event": "noise", "source": "measured", **noise_to_json(NOISE)}, SETTINGS
    )


def test_the_name_of_the_file_is_made_of_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(
        SETTINGS, search_space=replace(SETTINGS.search_space, module="search_spaces.linear_attention.space")
    )
    import search_spaces.linear_attention.space  # noqa: F401

    def name(corpus: str = "aa", **changed: Any) -> str:
        return noise_file(replace(settings, **changed), FakeSpace(), SimpleNamespace(sha256=corpus)).name  # type: ignore[arg-type]

    names = {
        name(),
        name("bb"),
        name(seed=9),  # of the search: the trainings are the same
        name(model=replace(settings.model, width=128)),
        name(train=replace(settings.train, learning_rate=1e-3)),
        name(scheduler=replace(settings.scheduler, first_rung=0.5)),
        name(search=replace(settings.search, noise_seeds=5)),
        name(search=replace(settings.search, trials=5)),  # no training depends on it
        name(execution=replace(settings.execution, address="ray://elsewhere")),
    }
    assert len(names) == 7
    monkeypatch.setattr(kept_noise, "machine_kind", lambda settings: {"processor": "another"})
    assert name() not in names


def test_the_machine_has_a_kind() -> None:
    kind = machine_kind(SETTINGS)
    assert kind == json.loads(json.dumps(kind)) == machine_kind(SETTINGS) and kind["processor"][0]
