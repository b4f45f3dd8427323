"""The weights out of a checkpoint, and whether a package computes with them what the engine does. Runs in the box."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nas.loading import load_mixer
from nas.rescore import parameters
from nas.standalone.loading import read
from nas.standalone.sources import PACKAGE
from nas.tasks.bits import bits_per_byte
from nas.tasks.feed import held_out_windows
from nas.tasks.reader import read_tokens
from nas.train import evaluate_windows, scored_bits, use_platform

Send = Callable[[dict[str, Any]], None]

_STEPS = 64  # so many tokens are decoded


def unpack_boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """Writes the parameters of "checkpoint" to the file "weights"; returns {"dtypes": name -> their type}.

    A type that NumPy's files do not know, as bfloat16, is written as the same bits in whole numbers.
    """
    use_platform({"accelerator": False})
    found = {name: np.asarray(array) for name, array in parameters(Path(arguments["checkpoint"])).items()}
    np.savez(arguments["weights"], **{name: _plain(array) for name, array in found.items()})  # type: ignore[arg-type]
    return {"dtypes": {name: array.dtype.name for name, array in found.items()}}


def _plain(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind in "biufc" else array.view(f"uint{8 * array.dtype.itemsize}")


def check_boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """{"logits": how far those of the package are from the engine's, "step": and its own token by token from those at
    once, both the largest difference; "bits_per_byte": of the package on the split "validation", if that is given}.

    Args:
      arguments: "folder" of the package, "source" of the mixer, "vocabulary", "batch", "time", "validation_windows",
        "dtype", and the files.
    """
    use_platform({"accelerator": False})
    folder, batch, time = Path(arguments["folder"]), arguments["batch"], arguments["time"]
    sys.path.insert(0, str(folder))
    package: Any = importlib.import_module(PACKAGE)
    model = package.load(folder)
    tokens = np.random.default_rng(0).integers(0, arguments["vocabulary"], (batch, time)).astype(np.int32)
    ours, theirs = (
        np.asarray(_called(each)(tokens)) for each in (read(folder, load_mixer(arguments["source"])), model)
    )
    files = arguments["files"]
    return {
        "logits": _apart(ours, theirs),
        "step": _stepped(package, model, tokens[:, :_STEPS], theirs) if _has_step(model) else None,
        "bits_per_byte": _bits_per_byte(model, files, arguments) if "validation" in files else None,
    }


def _called(model: Any) -> Any:
    """The model's call, compiled."""
    graph, variables = nnx.split(model)
    called = jax.jit(lambda variables, tokens: nnx.merge(graph, variables)(tokens).astype(jnp.float32))
    return lambda tokens: called(variables, tokens)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def _has_step(model: Any) -> bool:
    return callable(getattr(model.layers.mixer, "step", None))


def _stepped(package: Any, model: Any, tokens: np.ndarray, logits: np.ndarray) -> float:
    decoder = package.Decoder(model, len(tokens))
    stepped = np.stack([np.asarray(decoder(column), np.float32) for column in tokens.T], axis=1)
    return _apart(stepped, logits[:, : tokens.shape[1]])


def _bits_per_byte(model: Any, files: dict[str, int], arguments: dict[str, Any]) -> float:
    """On the windows that the search measured on."""
    text = read_tokens(files["validation"], arguments["dtype"])
    token_bytes = np.array(read_tokens(files["token_bytes"], "uint16"))
    windows = held_out_windows(text, arguments["validation_windows"], arguments["time"])
    graph, variables = nnx.split(model)
    scored = jax.jit(lambda variables, part: scored_bits(nnx.merge(graph, variables), part, token_bytes))
    bits = evaluate_windows(scored, variables, windows, arguments["batch"])
    return bits_per_byte(bits, windows, token_bytes)[0]
