"""The engine's training beside a loop that somebody would write by hand for the same model, in one process."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from nas.bench.figure import Figure, timed
from nas.commands.measuring import warm_boxes
from nas.loading import load_mixer
from nas.model import LanguageModel
from nas.sandbox import Limits, temporary_folder
from nas.settings import ModelSettings, Settings, TrainSettings
from nas.space import SearchSpace
from nas.tasks.corpus import prepare
from nas.tasks.feed import Feed, batches
from nas.tasks.reader import read_tokens
from nas.train import Programs, language_loss, scored_bits

ROUNDS = 7  # of both, one after the other
DISPATCHES = 2  # of the engine's, a round


def measure(settings: Settings, space: SearchSpace) -> Iterator[Figure]:
    """Seconds of one by seconds of the other, for as many steps: the median over rounds, and how far they spread."""
    corpus = prepare(settings.corpus, Path(settings.results_dir) / ".cache")
    for name in (space.reference, "linear_attention"):
        arguments = {
            "source": space.baselines()[name].source,
            "model": asdict(settings.model),
            "train": asdict(settings.train),
        }
        with warm_boxes(space) as (box,), temporary_folder("nas-bench-", box.root) as scratch:
            files = {"train": corpus.file("train")}
            *_, last = box.run("nas.bench.step:boxed", arguments, scratch, Limits(900), files)
        ratios = last["result"]["ratios"]
        what = f"training of {name}, by a bare loop's seconds"
        yield Figure(what, statistics.median(ratios), "", "at most 1.03")
        yield Figure(f"{what}: the least of {ROUNDS} rounds", min(ratios), "")
        yield Figure(f"{what}: the most of {ROUNDS} rounds", max(ratios), "")


def boxed(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Entry point in the box: the ratios of all rounds."""
    jax.config.update("jax_platforms", "cpu")
    data = read_tokens(arguments["files"]["train"], "uint8")
    settings, model = TrainSettings(**arguments["train"]), ModelSettings(**arguments["model"])
    mixer = load_mixer(arguments["source"])
    ours = engine(mixer, model, settings, data)
    bare = by_hand(mixer, model, settings, data)
    next(ours), next(bare)  # compile
    ratios = []
    for _ in range(ROUNDS):
        with timed() as first:
            next(ours)
        with timed() as second:
            next(bare)
        ratios.append(first() / second())
    return {"ratios": ratios}


def engine(mixer: type, model: ModelSettings, settings: TrainSettings, data: np.ndarray) -> Iterator[None]:
    """As `nas.train` advances between two rungs, `DISPATCHES` at a time."""
    programs = Programs(mixer, model, settings, language_loss, scored_bits)
    state, constants = programs.initialize(settings.seed)
    size = settings.steps_per_dispatch
    feed = Feed(data, settings, size, resident=False)
    for start in itertools.count(step=DISPATCHES * size):
        for windows in feed(range(start, start + DISPATCHES * size, size)):
            state, losses = programs.steps(state, constants, settings.learning_rate, windows)
            np.asarray(losses)
        yield


def by_hand(mixer: type, model: ModelSettings, settings: TrainSettings, data: np.ndarray) -> Iterator[None]:
    """The same model, optimizer and batches; one jitted step at a time, compiled as JAX does by default."""
    graph, params, rest = nnx.split(LanguageModel(mixer, model, rngs=nnx.Rngs(settings.seed)), nnx.Param, ...)  # type: ignore[misc]
    warmup = round(settings.warmup * settings.steps)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, settings.steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.clip), optax.adamw(schedule, weight_decay=settings.weight_decay)
    )
    optimizer_state = optimizer.init(params)

    def step(params: Any, optimizer_state: Any, batch: Any) -> tuple[Any, Any, Any]:
        def loss(params: Mapping[str, Any]) -> jax.Array:
            return language_loss(nnx.merge(graph, params, rest), batch)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    count = DISPATCHES * settings.steps_per_dispatch
    for start in itertools.count(step=count):
        for number in range(start, start + count):
            params, optimizer_state, value = compiled(params, optimizer_state, batches(data, settings, number, 1)[0])
        value.block_until_ready()
        yield
