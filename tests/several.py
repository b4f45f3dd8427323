"""What the tests of several devices run inside the box, in a process that has four: one start and one cache for all."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from nas import compiled
from nas.devices import spread
from nas.rescore import parameters
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.feed import Feed, batches
from nas.tasks.reader import read_tokens
from nas.train import complete_checkpoints, train

RUNGS = (6, 12, 24)


def train_each(arguments, send):
    """{name: {"rungs", "bytes": of the checkpoint's parameters}} of trainings on (devices, devices after a stop)."""
    compiled.use(Path.cwd())
    model, settings = ModelSettings(**arguments["model"]), TrainSettings(**arguments["train"])
    files = arguments["files"]
    data = {split: read_tokens(files[split]) for split in ("train", "validation")}
    found = {}
    for name, (first, then, accumulate) in arguments["runs"].items():
        folder, sent = Path.cwd() / "checkpoints" / name, []
        for devices, rungs in ((first, RUNGS[:2]), (then, RUNGS)) if then else ((first, RUNGS),):
            sent.clear()
            one = replace(settings, accumulate=accumulate)
            spread_over = spread(devices, one.microbatch)
            train(arguments["source"], model, one, data, 10, rungs, None, folder, sent.append, devices=spread_over)
        found[name] = {
            "rungs": [message["rung"] for message in sent],
            "parameters": values(folder / complete_checkpoints(folder)[-1]),
        }
    return found


def values(checkpoint):
    return [float(x) for leaf in parameters(checkpoint).values() for x in np.asarray(leaf).ravel()[::97]]


def feed_each(arguments, send):
    """How each way of feeding shares out a batch: whether it is the batch, and rows of each device."""
    settings = TrainSettings(**arguments["train"])
    data = read_tokens(arguments["files"]["train"])
    found = []
    for devices in (1, 2, 4):
        for resident in (False, True):
            feed = Feed(data, settings, 3, resident, spread(devices, settings.batch))
            for first, windows in zip((0, 3), feed((0, 3)), strict=True):
                same = bool((np.asarray(windows) == batches(data, settings, first, 3)).all())
                rows = [shard.data.shape[1] for shard in windows.addressable_shards]
                found.append({"devices": devices, "same": same, "rows": rows})
    return found


def count(arguments, send):
    return len(jax.devices())
