"""`nas train NAME|FILE`: one baseline or candidate file on the same harness as a search, without Ray."""

import json
from pathlib import Path

from rich.markup import escape

from nas.commands.check import read_candidate
from nas.commands.containment import contained
from nas.errors import UserError
from nas.sandbox import Box, temporary_folder
from nas.search import rung_steps
from nas.settings import Settings
from nas.space import SearchSpace, load_space
from nas.tasks.corpus import prepare
from nas.terminal import make_console, printable
from nas.trial import ANY, PRELOAD, compiled_folder, gate_arguments, make_spec, run_trial


def train(what: str, settings: Settings) -> int:
    """Trains it and prints each rung. Returns 0, or 1 if it was rejected or crashed.

    Raises:
      UserError: with one sentence.
    """
    space = load_space(settings.search_space.module)
    source, gated = find_source(what, space)
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    corpus.require_windows(settings.train.time)
    gate = gate_arguments(settings, sorted(space.allowed_imports), known={}, reference_flops=None)
    console = make_console()
    tier = contained(settings, console)
    console.print(
        f"training {what} for {settings.train.steps} steps of {settings.train.batch} x {settings.train.time} "
        f"{corpus.unit} of {corpus.name}, seed {settings.train.seed}"
    )
    with temporary_folder("nas-train-") as scratch:
        spec = make_spec(
            source,
            settings,
            corpus,
            gate=gate if gated else None,
            rungs=rung_steps(settings),
            floored=False,
            contends_below=ANY,
            seed=settings.train.seed,
            folder=scratch / "trial",
            compiled=compiled_folder(settings),
        )
        box = Box((*PRELOAD, *sorted(space.allowed_imports)), tier=tier, root=scratch)
        try:
            for message in run_trial(spec, box):
                if "certificate" in message:
                    console.print("the gate passes it")
                elif "rung" in message:
                    rung = message["rung"]
                    console.print(
                        f"step {rung['step']:>6}  {rung['bits_per_byte']:.4f} bits per byte (standard error "
                        f"{rung['stderr']:.4f} over windows)  {rung['tokens_per_second']:,.0f} tokens/s"
                    )
                else:
                    outcome = message["outcome"]
        finally:
            box.close()
    if outcome["kind"] == "fitness":
        console.print(
            json.dumps({**outcome, "seed": settings.train.seed, "corpus": corpus.sha256[:16]}), soft_wrap=True
        )
        return 0
    where = outcome.get("check") or outcome.get("cause")
    console.print(f"{outcome['kind']} ({where}): {escape(printable(outcome['reason']))}", soft_wrap=True)
    return 1


def find_source(what: str, space: SearchSpace) -> tuple[str, bool]:
    """(source, whether the gate applies): of a baseline by its name, else of a file.

    Raises:
      UserError: if it is neither.
    """
    if baseline := space.baselines().get(what):
        return baseline.source, True
    if reference := space.outside_references().get(what):
        return reference.source, False
    if Path(what).is_file():
        return read_candidate(Path(what)), True
    names = ", ".join([*space.baselines(), *space.outside_references()])
    raise UserError(f"there is no baseline and no file {what}: the baselines are {names}")
