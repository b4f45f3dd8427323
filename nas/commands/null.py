"""`nas null`: whether verification finds what isn't there, and misses what is.

Copies of a baseline that differ from it in nothing but names are verified as contenders. A copy on the baseline's own
seeds ends where the baseline does, so each copy is also compared on seeds of its own against the baseline on others:
then the difference is the noise of two independent sets of seeds. A planted improvement has to be found by that rule.
"""

import ast
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from nas.commands.containment import contained
from nas.commands.measuring import at_a_time, markdown_table, origin, origin_lines, warm_boxes, write_report
from nas.commands.verified import interval
from nas.commands.verify import Bench
from nas.errors import UserError
from nas.parsing import parse
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.tasks.corpus import prepare
from nas.terminal import make_console
from nas.types import Candidate
from nas.verify import (
    Comparison,
    Entrant,
    Piece,
    Scores,
    compare,
    conditions,
    is_matched,
    scores,
    test_piece,
    verdicts,
)

COPIES = 20
_OWN_WORDS = ("self", "TokenMixer", "forward", "width", "heads", "rngs", "x", "x_t", "state", "batch", "step")


def null(settings: Settings, overrides: Sequence[str]) -> int:
    """Measures, shows and writes results_dir/null.md. Returns 0, or 1 if verification failed its test.

    Raises:
      UserError: with one sentence.
    """
    space = load_space(settings.search_space.module)
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    baseline, planted = _baseline_and_planted(space)
    condition, plan = conditions(settings, corpus, None)[0], Plan(settings.train.seed + 1, settings.verify.seeds)

    def piece(candidate: Candidate, seeds: Sequence[int]) -> Piece:
        return test_piece(Entrant(candidate, "contender"), condition, settings.train.learning_rate, seeds, settings)

    copies = [Candidate(renamed(baseline.source, number), "copy", name=f"copy {number}") for number in range(COPIES)]
    base = piece(baseline, [*plan.same, *chain(*plan.baselines)])
    pieces = [piece(copy, [*plan.same, *its]) for copy, its in zip(copies, plan.copies, strict=True)]
    pieces = [base, piece(planted, plan.same), *pieces]
    console, began = make_console(), time.monotonic()
    with warm_boxes(space, *at_a_time(settings), contained(settings, console)) as boxes:
        bench = Bench(settings, space, ["null", corpus.sha256], boxes, console)
        found = bench.measured(pieces, "copies, and the planted improvement")
        minutes = (time.monotonic() - began) / 60
        head = origin("nas null", overrides, boxes, minutes)
    measured = [scores(one, found[one.key]) for one in pieces]
    if failed := [one.failure for one in measured if one.failure]:
        raise UserError(f"a copy could not be measured: {failed[0]}")
    report = {
        **head,
        "baseline": baseline.name,
        "planted": planted.name,
        "steps": condition.steps,
        "model": [condition.model.layers, condition.model.width, condition.model.heads],
        "train": [settings.train.batch, settings.train.time],
        "windows": settings.verify.windows,
        "corpus": {"name": corpus.name, "sha256": corpus.sha256},
        **concluded(plan, measured[0], measured[1], measured[2:], settings),
    }
    path = write_report(settings, "null", report, markdown(report))
    console.print("\n".join([*_table(report), f"written to {path}"]), markup=False, soft_wrap=True)
    return 0 if report["passed"] else 1


@dataclass(frozen=True)
class Plan:
    """Which seeds are whose: `count` at a time, from `first` on."""

    first: int
    count: int

    @property
    def same(self) -> tuple[int, ...]:
        """Of everybody."""
        return self._block(0)

    @property
    def copies(self) -> list[tuple[int, ...]]:
        """Of each copy alone."""
        return [self._block(1 + number) for number in range(COPIES)]

    @property
    def baselines(self) -> list[tuple[int, ...]]:
        """Of the baseline, for each copy others: else all copies would be compared with one draw of it."""
        return [self._block(1 + COPIES + number) for number in range(COPIES)]

    def _block(self, number: int) -> tuple[int, ...]:
        start = self.first + number * self.count
        return tuple(range(start, start + self.count))


def concluded(
    plan: Plan, theirs: Scores, planted: Scores, copies: Sequence[Scores], settings: Settings
) -> dict[str, Any]:
    """What verification says of the copies and of the planted improvement, as JSON values."""
    level = settings.verify.level
    at_theirs = only(theirs, plan.same)
    paired = [compare("same seeds", only(copy, plan.same), at_theirs, level) for copy in copies]
    seeds = zip(copies, plan.copies, plan.baselines, strict=True)
    unpaired = [compare("own seeds", only(copy, ours), only(theirs, its), level) for copy, ours, its in seeds]
    gain = compare("planted", only(planted, plan.same), at_theirs, level)
    forms = [_form("the same seeds", paired, settings), _form("seeds of their own", unpaired, settings)]
    word = verdicts([[gain]], [is_matched(planted, theirs)], settings)[0].word
    return {
        "seeds": plan.count,
        "level": level,
        "forms": forms,
        "found": {"verdict": word, "p": gain.p, "gain": _json(gain)},
        "passed": word == "better" and all(form["better"] <= 1 for form in forms),
    }


def _baseline_and_planted(space: SearchSpace) -> tuple[Candidate, Candidate]:
    """The weakest starter and the space's reference: an improvement that nobody doubts."""
    baselines = space.baselines()
    weak = next(name for name in space.starters if name != space.reference)
    return baselines[weak], baselines[space.reference]


def renamed(source: str, number: int) -> str:
    """`source` with other names for the attributes, methods and locals that the contract does not name."""
    tree = parse(source)
    own = _names(tree) - set(_OWN_WORDS)
    # In another order, too: parameters are kept by their names.
    new = {name: f"n{number}_{at}" for at, name in enumerate(sorted(own, reverse=True))}

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            return ast.copy_location(ast.Name(new.get(node.id, node.id), node.ctx), node)

        def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
            self.generic_visit(node)
            of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            node.attr = new.get(node.attr, node.attr) if of_self else node.attr
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
            self.generic_visit(node)
            node.name = new.get(node.name, node.name)
            for argument in [*node.args.args, *node.args.kwonlyargs]:
                argument.arg = new.get(argument.arg, argument.arg)
            return node

    return ast.unparse(ast.fix_missing_locations(Rename().visit(tree))) + "\n"


def _names(tree: ast.AST) -> set[str]:
    """Of what the module itself makes inside its class: attributes of self, methods, and what is assigned."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found - {"init_state"}


def only(measured: Scores, seeds: Sequence[int]) -> Scores:
    """Some of the seeds, numbered from 0: so those of one pair with those of another in their order."""
    return replace(measured, bits={number: measured.bits[seed] for number, seed in enumerate(seeds)})


def _form(name: str, compared: Sequence[Comparison], settings: Settings) -> dict[str, Any]:
    each_by_itself = [verdicts([[one]], [True], settings)[0].word for one in compared]
    family = verdicts([[one] for one in compared], [True] * len(compared), settings)
    return {
        "name": name,
        "better": each_by_itself.count("better"),
        "worse": each_by_itself.count("worse"),
        "better_as_one_family": sum(verdict.word == "better" for verdict in family),
        "p": sorted(one.p for one in compared),
        "gains": [_json(one) for one in compared],
    }


def _json(compared: Comparison) -> dict[str, Any]:
    assert compared.gain is not None
    return {name: getattr(compared.gain, name) for name in ("mean", "low", "high", "count")}


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    (layers, width, heads), (batch, window), corpus = report["model"], report["train"], report["corpus"]
    planted, steps, sha256 = report["planted"], report["steps"], corpus["sha256"][:16]
    worst = max((abs(gain["mean"]) for gain in report["forms"][0]["gains"]), default=0.0)
    lines = [
        "# Null test of verification",
        "",
        *origin_lines(dict(report)),
        f"{COPIES} copies of {report['baseline']} with other names, verified as contenders against it; and "
        f"{planted}, a planted improvement. {layers} layers of width {width}, {heads} heads; {steps} steps of "
        f"{batch} x {window} bytes of {corpus['name']} (sha256 {sha256}); {report['seeds']} fresh seeds each, "
        f"{report['windows']} windows of the test split.",
        "",
        *_table(report),
        f"Two-sided at {report['level']:g}: by chance one in {2 / report['level']:.0f} is called better. On the "
        f"baseline's own seeds a copy's gain is at most {worst:.1e} bits per byte away from none.",
        "",
    ]
    return "\n".join(lines)


def _table(report: Mapping[str, Any]) -> list[str]:
    rows: list[list[object]] = [
        [
            f"{len(form['gains'])} copies, {form['name']}",
            form["better"],
            form["worse"],
            form["better_as_one_family"],
            f"{form['p'][0]:.3g}",
            f"{min(gain['mean'] for gain in form['gains']):+.4f} to {max(gain['mean'] for gain in form['gains']):+.4f}",
        ]
        for form in report["forms"]
    ]
    found = report["found"]
    planted = int(found["verdict"] == "better"), int(found["verdict"] == "worse"), ""
    rows.append([f"planted: {report['planted']}", *planted, f"{found['p']:.3g}", interval(found["gain"])])
    return markdown_table(
        ["", "better", "worse", "better, as one family (Holm)", "least p", "gain, bits per byte"], rows
    )
