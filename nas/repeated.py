"""One architecture trained several times, at other seeds or learning rates, by one compiled program. Runs in the box.

It measures nothing that counts: each training leaves its parameters, and `nas.rescore` finds out what they are worth
on text that this process is never given.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nas import compiled
from nas.devices import on_one, spread
from nas.gate.cost import flops
from nas.loading import load_mixer
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.feed import Feed, is_resident
from nas.tasks.reader import read_tokens
from nas.train import Clock, Programs, Send, dispatch_size, language_loss, scored_bits, use_platform


def boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """Trains each of `runs` ({"name", "seed", "learning_rate"}) and keeps its parameters in `checkpoints`/name.

    Sends {"run": {...}} after each (see `reports.Run`): a run's seed fixes its initial parameters and its batches, so
    runs of different architectures at one seed are paired. Returns {"trained": True}.
    """
    use_platform(arguments)
    compiled.use(Path(arguments["checkpoints"]).parent)
    model, settings = ModelSettings(**arguments["model"]), TrainSettings(**arguments["train"])
    data = read_tokens(arguments["files"]["train"], arguments["dtype"])
    token_bytes = np.array(read_tokens(arguments["files"]["token_bytes"], "uint16"))
    measure = partial(scored_bits, token_bytes=token_bytes)
    mixer, vocabulary = load_mixer(arguments["source"]), len(token_bytes)
    devices = spread(arguments["devices"], settings.microbatch)
    programs = Programs(mixer, model, settings, language_loss, measure, vocabulary, devices)
    resident = is_resident(data, arguments["device_bytes"])
    size = dispatch_size([settings.steps], settings.steps_per_dispatch)
    cost: dict[str, Any] = {}
    for run in arguments["runs"]:
        state, constants = programs.initialize(run["seed"])
        cost = cost or _cost(programs, state["params"], constants, settings.time, data.dtype)
        clock, diverged = Clock(0.0), False
        feed = Feed(data, replace(settings, seed=run["seed"]), size, resident, devices)
        for windows in feed(range(0, settings.steps, size)):
            with clock:
                state, losses = programs.steps(state, constants, run["learning_rate"], windows)
                diverged = not np.isfinite(np.asarray(losses)).all()
            if diverged:
                break
        if not diverged:
            _keep(Path(arguments["checkpoints"]) / run["name"], on_one(state["params"]))
        pace = clock.calls_per_second * size * settings.batch * settings.time
        sent = {"name": run["name"], "diverged": diverged, "tokens_per_second": pace, "train_seconds": clock.seconds}
        send({"run": {**sent, **cost}})
    return {"trained": True}


def _cost(programs: Programs, params: Any, constants: Any, time: int, dtype: Any) -> dict[str, Any]:
    """{"params", "flops_per_token"}: of the whole model, forward."""
    one_window = jax.ShapeDtypeStruct((1, time + 1), dtype)
    counted = flops(programs.measure, params, constants, one_window) / time
    return {"params": sum(leaf.size for leaf in jax.tree.leaves(params)), "flops_per_token": counted}


def _keep(checkpoint: Path, params: Any) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(checkpoint.absolute(), {"params": params}, force=True)
