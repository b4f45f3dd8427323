"""One architecture trained at several seeds by one compiled program, and measured where it was trained. In the box.

For the tabular benchmark, whose candidates are all the grammar's own: nobody rescores them.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nas import compiled
from nas.gate.cost import flops
from nas.loading import load_mixer
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.bits import bits_per_byte
from nas.tasks.feed import Feed, held_out_windows, is_resident
from nas.tasks.reader import read_tokens
from nas.train import (
    Clock,
    Programs,
    Send,
    crashed,
    dispatch_size,
    evaluate_windows,
    language_loss,
    scored_bits,
    use_platform,
)


def boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """Sends {"run": {...}} for each of "seeds" (see `reports.Tabulated`).

    Returns {"trained": True} or {"crashed": {"cause", "reason"}}.
    """
    use_platform(arguments)
    compiled.use(Path(arguments["scratch"]))
    files, dtype = arguments["files"], arguments["dtype"]
    model, settings = ModelSettings(**arguments["model"]), TrainSettings(**arguments["train"])
    data, held_out = (read_tokens(files[split], dtype) for split in ("train", "validation"))
    windows = held_out_windows(held_out, arguments["validation_windows"], settings.time)
    token_bytes = np.array(read_tokens(files["token_bytes"], "uint16"))
    measure = partial(scored_bits, token_bytes=token_bytes)
    programs = Programs(
        load_mixer(arguments["source"]), model, settings, language_loss, measure, vocabulary=len(token_bytes)
    )
    size = dispatch_size([settings.steps], settings.steps_per_dispatch)
    resident = is_resident(data, arguments["device_bytes"])
    counted = 0.0
    for seed in arguments["seeds"]:
        state, constants = programs.initialize(seed)
        params = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
        one_window = jax.ShapeDtypeStruct((1, settings.time + 1), windows.dtype)
        counted = counted or flops(programs.measure, state["params"], constants, one_window) / settings.time
        clock = Clock(0.0)
        for batches in Feed(data, replace(settings, seed=seed), size, resident)(range(0, settings.steps, size)):
            with clock:
                state, losses = programs.steps(state, constants, settings.learning_rate, batches)
                finite = bool(np.isfinite(np.asarray(losses)).all())
            if not finite:
                return crashed("diverged", f"the training loss at seed {seed} was not finite")
        bits = evaluate_windows(programs.evaluator(constants), state["params"], windows, settings.batch)
        mean, stderr = bits_per_byte(bits, windows, token_bytes)
        if not math.isfinite(mean):
            return crashed("diverged", f"the validation loss at seed {seed} was not finite")
        found = {"bits_per_byte": mean, "stderr": stderr, "params": params, "flops_per_token": counted}
        send({"run": {"seed": seed, **found, "train_seconds": clock.seconds}})
    return {"trained": True}
