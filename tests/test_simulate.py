"""The tabular benchmark: a table of a small closed grammar, searches on it, and the commands that make and use it."""

import csv
import json
import random
import re
from pathlib import Path

import pytest

from nas.cli import main
from nas.commands.tabulate import closed_grammar
from nas.errors import UserError
from nas.settings import MetaSettings, SearchSettings, Settings, TrackingSettings
from nas.simulate import Table, TableSpace, engine, random_search, read_table, regularised_evolution, source_of
from nas.space import NotApplicable
from nas.types import Candidate
from search_spaces.linear_attention.space import SPACE

PARTS = {
    "write_rule": ["additive", "gated", "delta"],
    "strength": ["off", "sigmoid", "signed"],
    "normalize": ["off", "l2"],
    "readout": ["plain", "norm"],
    "feature_map": ["off", "silu"],
}


@pytest.fixture(scope="module")
def table() -> Table:
    """Made up: every part has its worth, and two seeds differ a little."""
    grammar, rng = closed_grammar(SPACE, PARTS), random.Random(0)
    worth = {(slot, part): rng.random() for slot, parts in PARTS.items() for part in parts}
    scores = {}
    for genome in grammar.candidates:
        mean = 4 - sum(worth[pair] for pair in zip(PARTS, genome, strict=True))
        scores[genome] = (mean + rng.gauss(0, 0.02), mean + rng.gauss(0, 0.02))
    families = {genome: SPACE.family(one.source) for genome, one in grammar.candidates.items()}
    return Table(tuple(PARTS), scores, families, dict.fromkeys(scores, 1e5), grammar.aliases)


@pytest.fixture(scope="module")
def space(table: Table) -> TableSpace:
    return TableSpace(table, SPACE)


def settings(kind: str = "ducb", trials: int = 20, **search: int) -> Settings:
    return Settings(
        search=SearchSettings(trials=trials, confirm_seeds=0, noise_seeds=0, **search),
        meta=MetaSettings(kind),
        tracking=TrackingSettings("none"),
    )


# The table


def test_a_closed_grammar_has_every_combination_once(table: Table) -> None:
    """Additive writes have no strength, gated ones do, signed with unit keys alone; the delta rule needs those."""
    shapes = {("additive", "off", n) for n in ("off", "l2")} | {("gated", "sigmoid", n) for n in ("off", "l2")}
    shapes |= {("gated", "signed", "l2"), ("delta", "sigmoid", "l2"), ("delta", "signed", "l2")}
    assert {genome[:3] for genome in table.scores} == shapes and len(table.scores) == 4 * len(shapes)
    assert table.aliases["additive", "signed", "l2", "norm", "off"] == ("additive", "off", "l2", "norm", "off")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "table.parts names no slot: table=small has a choice"),
        ({"nonsense": ["off"]}, "none of the candidates of table.parts can be made: there is no part nonsense=off"),
        ({"decay": ["never"]}, "none of the candidates of table.parts can be made: there is no part decay=never"),
    ],
)
def test_a_grammar_that_makes_nothing_is_refused(parts: dict[str, list[str]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        closed_grammar(SPACE, parts)


def test_the_best_and_the_regret_are_by_the_mean_over_seeds(table: Table) -> None:
    means = {genome: sum(scores) / 2 for genome, scores in table.scores.items()}
    best = min(means, key=lambda genome: means[genome])
    assert table.best == {best} and table.regret[best] == 0
    assert all(table.regret[genome] == pytest.approx(means[genome] - means[best]) for genome in means)
    assert 0.01 < table.noise(8).difference[8].deviation < 0.04


# The space


def test_children_are_lines_of_the_table_and_those_that_the_grammar_makes(space: TableSpace) -> None:
    rng = random.Random(0)
    assert {"write_rule", "strength", "readout", "crossover", "simplify"} <= {one.name for one in space.operators}
    assert not {"decay", "layout"} & {one.name for one in space.operators}
    for _ in range(200):
        operator = rng.choice(list(space.operators))
        genomes = rng.sample(sorted(space.table.scores), operator.parents)
        parents = [Candidate(source_of(genome), "") for genome in genomes]
        try:
            child = space.genome_of(space.mutate(operator, parents, rng).source)
        except NotApplicable:
            continue
        assert child in space.table.scores and child not in genomes
        if operator.name in PARTS:
            assert child[list(PARTS).index(operator.name)] != genomes[0][list(PARTS).index(operator.name)]


def test_starters_are_the_spaces_own_as_far_as_they_are_in_the_table(space: TableSpace) -> None:
    assert "deltanet" in space.baselines()
    genome = space.genome_of(space.baselines()["deltanet"].source)
    assert genome[:3] == ("delta", "sigmoid", "l2")


# Searches


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", ["ducb", "uniform"])
def test_the_engine_searches_the_table(space: TableSpace, kind: str, workers: int) -> None:
    run = engine(space, settings(kind), workers)
    assert run == engine(space, settings(kind), workers)
    assert len(set(run.tried)) == len(run.tried) <= 20 + len(space.baselines())
    assert set(run.tried[: len(space.baselines())]) == {space.genome_of(b.source) for b in space.baselines().values()}
    assert run.posterior and {operator for operator, _, _ in run.gains} <= {one.name for one in space.operators}


def test_controls_try_each_line_once(space: TableSpace) -> None:
    for search in (random_search, regularised_evolution):
        run = search(space, 25, 3)
        assert run.tried == search(space, 25, 3).tried and len(set(run.tried)) == len(run.tried) == 25
    assert len(random_search(space, 10**6, 0).tried) == len(space.table.scores)


def test_evaluations_are_counted_to_the_first_of_the_best(table: Table, space: TableSpace) -> None:
    run = random_search(space, 10**6, 0)
    count = run.evaluations_to(table.best)
    assert count and run.tried[count - 1] in table.best
    assert random_search(space, count - 1, 0).evaluations_to(table.best) is None


def test_a_search_finds_the_best_sooner_than_chance(table: Table, space: TableSpace) -> None:
    counts = [
        engine(space, Settings(seed, search=settings(trials=28).search)).evaluations_to(table.best) or 28
        for seed in range(12)
    ]
    assert sum(counts) / len(counts) < (len(table.scores) + 1) / 2


# The commands


TINY = [
    *("experiment=smoke", "train.steps=4", "train.time=32", "train.grid=[1]", "task.validation_windows=2"),
    *(
        "+table.parts.write_rule=[additive]",
        "+table.parts.readout=[plain,norm]",
        "+table.parts.feature_map=['off',silu]",
    ),
]


@pytest.fixture(scope="module")
def tabulated(text: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert main(["tabulate", *TINY, *text, f"results_dir={results}"]) == 0
    return results


def test_a_table_is_measured_and_goes_on_where_it_was(
    tabulated: Path, text: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with (tabulated / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["readout"], row["feature_map"]) for row in rows] == [
        (readout, feature_map) for readout in ("plain", "norm") for feature_map in ("off", "silu")
    ]
    assert all(row["bits_per_byte_0"] != row["bits_per_byte_1"] for row in rows)
    report = json.loads((tabulated / "table.json").read_text())
    assert report["candidates"] == 4 and report["failed"] == [] and report["noise_of_difference"] > 0
    assert main(["tabulate", *TINY, *text, f"results_dir={tabulated}"]) == 0
    assert "going on with the 4 results" in capfd.readouterr().out
    with (tabulated / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == rows


def test_hundreds_of_searches_become_one_table(tabulated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"results_dir={tabulated}", "simulate.seeds=3", "search.trials=4", "simulate.processes=1"]
    assert main(["simulate", *words, f"simulate.transfer={tabulated / 'table.csv'}"]) == 0
    assert "the engine" in capfd.readouterr().out
    report = json.loads((tabulated / "meta.json").read_text())
    by_name = {design["design"]: design for design in report["designs"]}
    assert by_name["random search"]["evaluations"]["mean"] <= 4 and report["transfer"]["designs"]
    assert "| the engine |" in (tabulated / "meta.md").read_text()


@pytest.mark.parametrize("damage", ["no table", "no report", "not a table", "a number that is none", "other slots"])
def test_a_damaged_table_is_told_of_in_one_sentence(damage: str, tabulated: Path, tmp_path: Path) -> None:
    for name in ("table.csv", "table.json"):
        (tmp_path / name).write_text((tabulated / name).read_text())
    if damage == "no table":
        (tmp_path / "table.csv").unlink()
    elif damage == "no report":
        (tmp_path / "table.json").unlink()
    elif damage == "not a table":
        (tmp_path / "table.csv").write_text("nothing\n")
    elif damage == "a number that is none":
        (tmp_path / "table.csv").write_text(re.sub(r",\d\.", ",none", (tmp_path / "table.csv").read_text()))
    else:
        report = json.loads((tmp_path / "table.json").read_text())
        (tmp_path / "table.json").write_text(json.dumps({**report, "slots": ["nonsense"]}))
    with pytest.raises(UserError, match=r"^(there is no table|the table .* is damaged).*nas tabulate makes it"):
        read_table(tmp_path / "table.csv")
