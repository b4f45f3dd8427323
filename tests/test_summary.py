"""The claim at the end: from fresh seeds alone, in words that the numbers carry."""

import io
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeSpace, fitness, make_settings, simulate, source_of, start
from markdown_it import MarkdownIt
from rich.console import Console

from nas.archive import Archive
from nas.search import Assignment, Search
from nas.statistics import mean_interval
from nas.summary import Summary, summarize
from nas.tally import Tally
from nas.types import Budget, Candidate, Cost, Crashed, Held, Outcome, Rejected, Trial

FOLDER = Path("results/first")
CHILD = Candidate(source_of((2, 2, 2, 2)), "decay", proposer="grammar")
STRONG = FakeSpace().baselines()["strong"]
PLAIN = FakeSpace().baselines()["plain"]


def told(*trials: tuple[Candidate, str, int, Outcome | float]) -> Search:
    """A search that was told of these (candidate, purpose, seed, outcome or bits per byte)."""
    search, _ = start(make_settings())
    for number, (candidate, purpose, seed, outcome) in enumerate(trials):
        ended = fitness(outcome) if isinstance(outcome, float) else outcome
        search.tell(Trial(f"t{number:04d}", candidate, purpose, Budget(40, seed), ended, Cost()))
    return search


def confirmed(candidate: Mapping[int, float], baseline: Mapping[int, float]) -> Summary:
    """The summary of one candidate beside one baseline: training seed -> bits per byte; seed 0 chose them."""
    return summarize(
        told(
            *((STRONG, "confirm" if seed else "baseline", seed, bits) for seed, bits in baseline.items()),
            *((CHILD, "confirm" if seed else "search", seed, bits) for seed, bits in candidate.items()),
        )
    )


def shown(summary: Summary, folder: Path = FOLDER, reason: str = "trials", terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False, force_terminal=terminal)
    summary.show(console, folder, reason)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# The verdict


@pytest.mark.parametrize(
    ("candidate", "baseline", "word"),
    [
        ({0: 2.0, 1: 2.00, 2: 2.01}, {0: 2.5, 1: 2.50, 2: 2.52}, "better than"),
        ({0: 2.0, 1: 2.50, 2: 2.51}, {0: 2.5, 1: 2.00, 2: 2.02}, "worse than"),
        ({0: 2.0, 1: 2.00, 2: 2.60}, {0: 2.5, 1: 2.50, 2: 2.50}, "indistinguishable from"),
        ({0: 2.0, 1: 2.25, 2: 2.25}, {0: 2.5, 1: 2.25, 2: 2.25}, "indistinguishable from"),
    ],
)
def test_the_verdict_is_what_the_interval_allows(
    candidate: dict[int, float], baseline: dict[int, float], word: str
) -> None:
    summary = confirmed(candidate, baseline)
    fresh = mean_interval([baseline[seed] - candidate[seed] for seed in (1, 2)])
    assert summary.gain == fresh
    assert summary.verdict() == (
        f"On 2 fresh seeds the best candidate is {word} the best baseline: "
        f"it gains {fresh} bits per byte (95% interval)."
    )


def test_the_seed_that_chose_them_is_no_evidence() -> None:
    lucky = confirmed({0: 0.5, 1: 2.0, 2: 2.1}, {0: 2.5, 1: 2.0, 2: 2.1})
    usual = confirmed({0: 2.4, 1: 2.0, 2: 2.1}, {0: 2.5, 1: 2.0, 2: 2.1})
    assert lucky.gain == usual.gain and lucky.gain.mean == 0


@pytest.mark.parametrize("seed", range(10))
def test_seeds_are_paired(seed: int) -> None:
    """What a seed does to both is not in the difference; a seed that only one was trained with is left out."""
    rng = random.Random(seed)
    luck = {number: rng.uniform(-1, 1) for number in range(5)}
    baseline = {number: 3.0 + luck[number] for number in luck if number != 3}
    candidate = {number: 2.75 + luck[number] for number in luck if number != 4}
    gain = confirmed(candidate, baseline).gain
    assert gain and gain.count == 2 and gain.low == pytest.approx(0.25) == gain.high


def test_one_fresh_seed_allows_no_verdict() -> None:
    verdict = confirmed({0: 2.0, 1: 2.0}, {0: 2.5, 1: 2.5}).verdict()
    assert verdict.startswith("On the one fresh seed the best candidate gains +0.5000 bits per byte over the best")
    assert "no verdict" in verdict and not any(word in verdict for word in ("better", "worse", "indisting", "95%"))


def test_without_fresh_seeds_there_is_no_claim() -> None:
    verdict = confirmed({0: 2.0}, {0: 2.5}).verdict()
    assert verdict == (
        "The best candidate was not confirmed on fresh seeds: its score is that of the seed that chose it."
    )


def test_a_confirmation_that_crashed_is_none() -> None:
    summary = summarize(
        told(
            (STRONG, "baseline", 0, 2.5),
            (CHILD, "search", 0, 2.0),
            (STRONG, "confirm", 1, 2.5),
            (CHILD, "confirm", 1, Crashed("diverged", "not finite")),
        )
    )
    assert summary.gain is None and "not confirmed" in summary.verdict()


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ((), "No candidate was trained."),
        (((STRONG, "baseline", 0, 2.5),), "No candidate was trained."),
        (((STRONG, "baseline", 0, 2.5), (CHILD, "search", 0, Rejected("cost", "x"))), "No candidate was trained."),
        (((CHILD, "search", 0, 2.0),), "No baseline was trained."),
        (((CHILD, "search", 0, 2.0), (STRONG, "baseline", 0, Crashed("timeout", "slow"))), "No baseline was trained."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reason", ["trials", "interrupted", "no baseline could be trained", "budget.minutes=1"])
def test_an_end_with_nothing_to_compare_is_told_all_the_same(trials: tuple, verdict: str, reason: str) -> None:
    summary = summarize(told(*trials))
    assert summary.verdict() == verdict and summary.gain is None
    assert verdict in shown(summary, reason=reason) and verdict in summary.markdown()


def test_the_best_are_those_of_the_archive() -> None:
    better = Candidate(source_of((3, 3, 3, 3)), "write")
    summary = summarize(
        told(
            (PLAIN, "baseline", 0, 2.25),
            (STRONG, "baseline", 0, 2.5),
            (CHILD, "search", 0, 2.0),
            (better, "search", 0, fitness(1.0, step=10)),  # stopped early: less was trained, so less is known
        )
    )
    assert summary.best and summary.best.candidate == CHILD
    assert summary.best_baseline and summary.best_baseline.candidate == PLAIN


def test_the_rows_are_what_was_trained_to_the_end_best_first() -> None:
    stopped = Candidate(source_of((3, 3, 3, 3)), "write")
    summary = summarize(
        told(
            (PLAIN, "baseline", 0, 2.25),
            (STRONG, "baseline", 0, 2.75),
            (STRONG, "confirm", 1, 2.5),
            (CHILD, "search", 0, 2.0),
            (stopped, "search", 0, fitness(1.0, step=10)),
        )
    )
    assert [(row.name, row.by_seed) for row in summary.rows] == [
        (f"decay {CHILD.id}", {0: 2.0}),
        ("plain", {0: 2.25}),
        ("strong", {0: 2.75, 1: 2.5}),
    ]
    assert "| strong | 2.5000 | 1 fresh |" in summary.markdown()
    assert "| plain | 2.2500 | 1 |" in summary.markdown()


def test_no_more_candidates_are_listed_than_asked_for_and_every_baseline() -> None:
    search, _ = start(make_settings(trials=30))
    simulate(search)
    for top in (1, 3):
        rows = summarize(search, top).rows
        assert sum(row.trial.purpose == "search" for row in rows) <= top
        assert sum(row.trial.purpose == "baseline" for row in rows) == 3


def test_the_noise_is_that_after_the_full_budget() -> None:
    search, _ = start(make_settings(trials=4, noise_seeds=2))
    simulate(search)
    assert summarize(search).noise == search.archive.noise(40) > 0
    assert isinstance(search.archive, Archive)


def test_every_outcome_is_counted_once() -> None:
    held = Held("leap", "too good", fitness(0.1))
    outcomes: list[Outcome] = [fitness(2.0), fitness(2.0), Rejected("cost", "x"), Crashed("timeout", "y"), held]
    candidates = [Candidate(source_of((4, 4, 4, number)), "decay") for number in range(5)]
    summary = summarize(told(*((c, "search", 0, o) for c, o in zip(candidates, outcomes, strict=True))))
    counts = {"trained to the end": 2, "rejected by cost": 1, "crashed (timeout)": 1, "held by leap": 1}
    assert summary.outcomes == counts
    tally = "Candidates: 1 crashed (timeout), 1 held by leap, 1 rejected by cost, 2 trained to the end."
    assert tally in summary.markdown()


# What is held, and what was measured on held-out bytes


def test_what_is_held_is_in_no_row_and_the_way_to_decide_is_told() -> None:
    summary = summarize(
        told(
            (STRONG, "baseline", 0, 2.5),
            (CHILD, "search", 0, Held("entropy", "below it", fitness(0.1))),
            (STRONG, "confirm", 1, Held(HOSTILE, HOSTILE, fitness(0.1))),
        )
    )
    assert summary.waiting == ["t0001", "t0002"] and summary.best is None
    assert [row.name for row in summary.rows] == ["strong"] and summary.rows[0].by_seed == {0: 2.5}
    text = shown(summary)
    assert "Held: 2 wait for your decision" in text and "nas review results/first " in text
    assert "Held until a person has decided: t0001, t0002." in summary.markdown()
    assert "0.1" not in summary.markdown()


def test_where_nothing_is_held_nothing_is_said_of_it() -> None:
    summary = confirmed({0: 2.0}, {0: 2.5})
    assert not any(word in shown(summary) + summary.markdown() for word in ("Held", "held", "nas review"))


def test_held_out_scores_stand_beside_the_others_where_there_are_any() -> None:
    def rescored(bits: float, held_out: float) -> Outcome:
        return replace(fitness(bits), held_out_bits_per_byte=held_out, held_out_stderr=0.01)

    summary = summarize(
        told(
            (STRONG, "baseline", 0, rescored(2.5, 2.75)),
            (PLAIN, "baseline", 0, 3.0),
            (CHILD, "search", 0, rescored(2.0, 1.0)),
            (CHILD, "confirm", 1, rescored(2.0, 2.25)),
            (CHILD, "confirm", 2, rescored(2.0, 2.25)),
        )
    )
    held_out = {row.name: row.held_out for row in summary.rows}
    assert held_out == {f"decay {CHILD.id}": [2.25, 2.25], "strong": [2.75], "plain": []}
    lines = summary.markdown().splitlines()
    assert "| architecture | bits per byte | held out | seeds |" in lines and "|---|---|---|---|" in lines
    assert f"| decay {CHILD.id} | 2.0000 ± 0.0000 | 2.2500 ± 0.0000 | 2 fresh |" in lines
    assert "| strong | 2.5000 | 2.7500 | 1 |" in lines and "| plain | 3.0000 |  | 1 |" in lines
    assert "held out" in shown(summary) and "2.7500" in shown(summary)


# What the language models did


def tally(model: str = "qwen3") -> Tally:
    call = {"work": "p0001", "tokens_in": 1000, "tokens_out": 500, "dollars": 0.25}
    counted = Tally()
    for event in (
        {"event": "draw", "work": "p0001", "plan": {"model": model}},
        {"event": "completion", **call},
        {"event": "call_failed", "kind": "timeout", **call},
        {"event": "unusable", "kind": "json"},
        {"event": "ask", "work": "p0001", "purpose": "search", "candidate": {"proposer": "llm"}},
        {"event": "analysis", "trial": "t0001", "verdict": "confirmed"},
    ):
        counted.take(event)
    return counted


def test_what_the_models_did_is_told_in_two_lines() -> None:
    summary = summarize(told((STRONG, "baseline", 0, 2.5), (CHILD, "search", 0, 2.0)), llm=tally())
    lines = [
        "LLM: 2 calls, 1 failed (1 timeout), 1 unusable answer (1 json), 3.0k tokens, $0.50.",
        "Proposers: 1 candidate by qwen3; predictions: 1 confirmed.",
    ]
    assert summary.markdown().splitlines()[-2:] == lines
    text = shown(summary)
    assert all(line in text.splitlines() for line in lines)


@pytest.mark.parametrize("llm", [None, Tally()])
def test_without_a_model_nothing_is_said_of_one(llm: Tally | None) -> None:
    summary = summarize(told((CHILD, "search", 0, 2.0)), llm=llm)
    assert not any(word in shown(summary) + summary.markdown() for word in ("LLM", "Proposers"))


def test_a_hostile_name_of_a_model_is_text() -> None:
    model = "<img src=x> [l](http://evil) **b** `c` www.evil.example\n# Heading \x1b[2J"
    summary = summarize(told((CHILD, "search", 0, 2.0)), llm=tally(model))
    html = MarkdownIt("commonmark", {"html": True}).render(summary.markdown())
    assert not any(tag in html for tag in ("<img", "<a ", "<strong", "<code", "<h1")) and "**b**" in html
    assert "www." not in summary.markdown() and "http://" not in summary.markdown(), "no page makes a link of it"
    assert "\x1b" not in shown(summary) + summary.markdown() and "<img src=x>" in shown(summary)


# What is shown


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("trials", "Ended: all candidates were tried."),
        ("interrupted", "Ended: you interrupted it; nothing finished is lost."),
        ("budget.minutes=5", "Ended: the cap budget.minutes=5 is reached."),
        ("no baseline could be trained", "Ended: no baseline could be trained."),
    ],
)
def test_the_end_and_the_way_on_are_told(reason: str, words: str) -> None:
    text = shown(confirmed({0: 2.0, 1: 2.0}, {0: 2.5, 1: 2.5}), reason=reason)
    assert words in text
    assert "nas ui results_dir=results" in text and "nas train results/first/best.py" in text
    assert ("nas search resume=results/first search.trials=" in text) == (reason == "trials")
    assert "nas search resume=results/first " in text


HOSTILE = "[red]red[/red] [/] [link=http://evil]here[/link] \x1b[2J\x1b]0;title\x07 a|b\nnext"


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_text_is_text(terminal: bool) -> None:
    hostile = Candidate(source_of((2, 2, 2, 3)), "decay", name=HOSTILE)
    crashed = Candidate(source_of((2, 2, 2, 4)), "decay")
    rejected = Candidate(source_of((2, 2, 2, 5)), "decay")
    summary = summarize(
        told(
            (STRONG, "baseline", 0, 2.5),
            (hostile, "search", 0, 2.0),
            (crashed, "search", 0, Crashed(HOSTILE, HOSTILE)),
            (rejected, "search", 0, Rejected(HOSTILE, HOSTILE)),
        )
    )
    text = shown(summary, Path("results/[bold]x[/y]"), HOSTILE, terminal)
    assert "rejected by [red]red[/red] [/] [link=http://evil]here[/link]" in text
    assert "results/[bold]x[/y]/best.py" in text
    assert "\x1b[2J" not in text and "\x1b]" not in text and "\x07" not in text
    assert terminal or "\x1b" not in text
    rows = [line for line in summary.markdown().splitlines() if line.startswith("| ")]
    assert all(line.count("|") == 4 for line in rows), "three cells in each row"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(summary.markdown())
    assert "<a " not in html and "[red]red[/red]" in html, "shown as it is"


def test_a_simulated_search_is_summed_up() -> None:
    search, _ = start(make_settings(trials=20, confirm_seeds=3))

    def outcome(assignment: Assignment) -> Outcome:
        worse = 0.5 if assignment.candidate.operator == "baseline" else 0.0
        return fitness(2.0 + worse + 0.001 * (int(assignment.candidate.id, 16) % 7) + 0.01 * assignment.budget.seed)

    simulate(search, outcome=outcome)
    summary = summarize(search)
    assert summary.gain and summary.gain.count == 3 and "is better than" in summary.verdict()
