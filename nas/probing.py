"""Training of one candidate on a probe task, once for each seed and learning rate. Runs in the box.

All runs go through one compiled program: compiling takes longer than most of them. A batch is a function of (seed,
step), and what is scored is the same for every candidate, seed and learning rate: differences are paired.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nas.loading import load_mixer
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.probe import Examples, Probe, Setup
from nas.tasks.probes import PROBES
from nas.train import Programs, crashed, dispatch_size, use_platform

SOLVED = 0.99  # of the answers (Arora et al. 2023): then a run is over
_TRAINING, _LOOKS, _SCORES = range(3)  # streams of random numbers: nothing is trained on, or stopped by, what is scored
_LOOK_EXAMPLES = 128


def boxed(arguments: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Entry point in the box: `probe` with JSON in and JSON out.

    Sends {"run": {"seed", "learning_rate", ...}} for each (seed, learning rate) of "runs" in turn: with "accuracy" (a
    list, by scored length), "loss" (nats), "steps" and "seconds", or with "crashed". Returns {"probed": True}.
    """
    use_platform(arguments)
    setup = PROBES[arguments["task"]].at(arguments["size"])
    setup = replace(setup, steps=arguments["steps"] or setup.steps)
    for run in probe(arguments["source"], setup, arguments["runs"]):
        send({"run": run})
    return {"probed": True}


def probe(source: str, setup: Setup, runs: list[tuple[int, float]]) -> Iterator[dict[str, Any]]:
    """Trains and scores a candidate once for each (seed, peak learning rate), and yields what was found."""
    programs = Programs(
        load_mixer(source),
        model_settings(setup),
        train_settings(setup),
        loss=answer_loss,
        measure=right_answers,
        vocabulary=setup.probe.vocabulary,
    )
    for seed, learning_rate in runs:
        started = time.monotonic()
        found = _run(programs, setup, seed, learning_rate)
        yield {"seed": seed, "learning_rate": learning_rate, **found, "seconds": time.monotonic() - started}


def _run(programs: Programs, setup: Setup, seed: int, learning_rate: float) -> dict[str, Any]:
    state, constants = programs.initialize(seed)
    size = dispatch_size([setup.steps], setup.look_every)
    loss = 0.0
    for first in range(0, setup.steps, size):
        batches = training_batches(setup, seed, first, size)
        state, computed = programs.steps(state, constants, learning_rate, batches)
        losses = np.asarray(computed)
        if not np.isfinite(losses).all():
            bad = first + int(np.argmin(np.isfinite(losses))) + 1
            return crashed("diverged", f"the training loss was not finite at step {bad} of {setup.steps}")
        step, loss = first + size, float(losses[-1])
        if step < setup.steps and _solved(programs, state["params"], constants, setup):
            break
    accuracies = [
        accuracy(programs, state["params"], constants, setup, _SCORES, length, setup.examples)
        for length in setup.probe.scored_times
    ]
    if not np.isfinite(accuracies).all():
        return crashed("diverged", f"what it answered was not finite after step {step} of {setup.steps}")
    return {"accuracy": accuracies, "loss": loss, "steps": step}


def model_settings(setup: Setup) -> ModelSettings:
    return ModelSettings(setup.width, setup.heads, setup.layers, setup.layer_params)


def train_settings(setup: Setup) -> TrainSettings:
    """Of every run; its seed and its learning rate are given to the programs."""
    return TrainSettings(
        steps=setup.steps,
        batch=setup.batch,
        time=setup.probe.time,
        weight_decay=setup.weight_decay,
        steps_per_dispatch=setup.look_every,
    )


# Examples


def training_batches(setup: Setup, seed: int, first: int, count: int) -> Examples:
    """Those of steps first, ..., first + count - 1: arrays [count, batch, time]."""
    steps = [
        setup.probe.sample(np.random.default_rng((_TRAINING, seed, step)), setup.batch, setup.probe.time)
        for step in range(first, first + count)
    ]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *steps)


def held_out(probe: Probe, stream: int, time: int, batch: int, most: int) -> Iterator[Examples]:
    """At least one batch, and at most `most` examples: the same for every seed."""
    for number in range(max(1, most // batch)):
        yield probe.sample(np.random.default_rng((stream, time, number)), batch, time)


# Measurements


def _solved(programs: Programs, params: Any, constants: Any, setup: Setup) -> bool:
    """Whether all lengths are solved; the longer ones are looked at only when the shorter ones are."""
    return all(
        accuracy(programs, params, constants, setup, _LOOKS, length, _LOOK_EXAMPLES) >= SOLVED
        for length in setup.probe.scored_times
    )


def accuracy(
    programs: Programs, params: Any, constants: Any, setup: Setup, stream: int, time: int, examples: int
) -> float:
    """Share of right answers on held-out examples; NaN if what the model says is not finite."""
    batches = held_out(setup.probe, stream, time, setup.batch, examples)
    counts = [
        (np.asarray(programs.evaluate(params, constants, batch), np.float64).sum(), batch.weights.sum())
        for batch in batches
    ]
    right, asked = np.sum(counts, axis=0)
    return float(right / asked)


def answer_loss(model: Any, examples: Examples) -> jax.Array:
    """Mean nats of what is to be predicted."""
    logits = model(examples.tokens).astype(jnp.float32)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, examples.targets)
    return jnp.sum(nats * examples.trained) / jnp.sum(examples.trained)


def right_answers(model: Any, examples: Examples) -> jax.Array:
    """Right answers of each example: float32 [count]. NaN where what the model says is not finite."""
    logits = model(examples.tokens)
    right = jnp.sum((jnp.argmax(logits, axis=-1) == examples.targets) * examples.weights, axis=1)
    return jnp.where(jnp.isfinite(logits).all(axis=(1, 2)), right, jnp.nan)
