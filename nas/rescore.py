"""What a checkpoint is really worth, measured by a process that runs no line of the candidate.

Code under test can forge whatever its own process measures. So two contained processes share the work: the first
traces the candidate's model and hands over the traced program (StableHLO, by `jax.export`); the second, which never
sees the source, restores the parameters from the checkpoint, runs the program on held-out text and computes the loss
itself. In passing it looks whether the certificate still holds with the parameters that training found, on real text:
a leak behind a condition that no drawn parameters met shows here.
"""

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax import export

from nas.loading import load_mixer
from nas.model import LanguageModel, expected_params
from nas.settings import ModelSettings
from nas.tasks.bits import bits_of_windows, bits_per_byte
from nas.tasks.feed import held_out_windows
from nas.tasks.reader import read_tokens
from nas.train import compiler_options, evaluate_windows, use_platform

Program = Callable[[Sequence[Any], Any], jax.Array]
Send = Callable[[dict[str, Any]], None]

_MOST_PROGRAM_BYTES = 8 * 2**20
_MOVED = 5e-3  # nats of any token's log-probability: far above rounding, far below what makes a loss better
_CUT_RUNS = 24
# Targets of custom calls that are numerical routines of JAX; a call back into Python is none.
_ROUTINES = re.compile(r"(lapack|cu|hip|ducc|dynamic_ducc)\w+|Sharding|(Approx)?TopK|mhlo\.\w+|Eigh|Qr|Lu\w+")


# In the first process: from source to program.


def export_boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """{"program": base64 of the exported forward pass, "names": its parameters in order, "drawn": bool}.

    The program is a function of (parameters, tokens [batch, time]) -> logits float32 [batch, time, vocabulary].
    `drawn`: whether it has constants of the candidate in it, which may be others at another seed.
    """
    use_platform(arguments)
    settings = ModelSettings(**arguments["model"])
    mixer = load_mixer(arguments["source"])

    def create() -> LanguageModel:
        return LanguageModel(mixer, settings, arguments["vocabulary"], rngs=nnx.Rngs(arguments["seed"]))

    split: Any = nnx.split  # its overloads do not know `...`
    graph, params, rest = split(nnx.eval_shape(create), nnx.Param, ...)
    if jax.tree.leaves(rest):  # constants of the candidate
        rest = jax.jit(lambda: split(create(), nnx.Param, ...)[2])()
    leaves, tree = jax.tree.flatten(params)

    def program(leaves: Sequence[Any], tokens: jax.Array) -> jax.Array:
        model = nnx.merge(graph, jax.tree.unflatten(tree, leaves), rest)
        return model(tokens.astype(jnp.int32)).astype(jnp.float32)

    tokens = jax.ShapeDtypeStruct((arguments["batch"], arguments["time"]), arguments["dtype"])
    exported = export.export(jax.jit(program))([jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves], tokens)
    names = [_name(path) for path, _ in jax.tree.leaves_with_path(nnx.to_pure_dict(params))]
    program_text = base64.b64encode(exported.serialize()).decode()
    return {"program": program_text, "names": names, "drawn": bool(jax.tree.leaves(rest))}


# In the second process: from program and checkpoint to numbers.


def score_boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """{"bits_per_byte", "held_out_bits_per_byte", "held_out_stderr", "fault"}.

    The first is on the windows that training measured on, the next two on the split "reserve". `fault` is a sentence
    where the certificate no longer holds, else None.
    """
    use_platform(arguments)
    settings = ModelSettings(**arguments["model"])
    batch, time, vocabulary = arguments["batch"], arguments["time"], arguments["vocabulary"]
    files = arguments["files"]
    token_bytes = np.array(read_tokens(files["token_bytes"], "uint16"))
    params = restored(Path(arguments["checkpoint"]), arguments["names"])
    program = loaded(base64.b64decode(arguments["program"]), params, batch, time, arguments["dtype"], vocabulary)

    evaluate = _evaluator(program, token_bytes)

    def measured(windows: np.ndarray) -> tuple[float, float]:
        return bits_per_byte(evaluate_windows(evaluate, params, windows, batch), windows, token_bytes)

    texts = {
        split: held_out_windows(read_tokens(files[split], arguments["dtype"]), arguments["validation_windows"], time)
        for split in ("validation", "reserve")
    }
    held_out, held_out_stderr = measured(texts["reserve"])
    fault = _wrong_size(params, settings, vocabulary)
    return {
        "bits_per_byte": measured(texts["validation"])[0],
        "held_out_bits_per_byte": held_out,
        "held_out_stderr": held_out_stderr,
        "fault": fault or _uncertified(program, params, texts["reserve"], batch, time, vocabulary),
    }


def score_many_boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """{"scores": name -> {"bits": of each window, "fault": as above}} of several checkpoints.

    A window's bits are divided by the bytes of a mean window, so that their mean is the bits per byte of them all. The
    windows are spread over the one text that it is handed, "text". `programs` has the one for all checkpoints as "", or
    each one's by its name. Without `certify` nothing is looked at but the loss.
    """
    use_platform(arguments)
    settings = ModelSettings(**arguments["model"])
    batch, time, vocabulary = arguments["batch"], arguments["time"], arguments["vocabulary"]
    files, dtype = arguments["files"], arguments["dtype"]
    token_bytes = np.array(read_tokens(files["token_bytes"], "uint16"))
    text = held_out_windows(read_tokens(files["text"], dtype), arguments["windows"], time)
    bytes_of_window = token_bytes[text[:, 1:]].sum(axis=1, dtype=np.float64).mean()
    programs: dict[str, Program] = {}
    scores = {}
    for name in arguments["runs"]:
        params = restored(Path(arguments["checkpoints"]) / name, arguments["names"])
        one = "" if "" in arguments["programs"] else name
        if one not in programs:
            serialized = base64.b64decode(arguments["programs"][one])
            programs[one] = loaded(serialized, params, batch, time, dtype, vocabulary)
        program = programs[one]
        bits = evaluate_windows(_evaluator(program, token_bytes), params, text, batch) / bytes_of_window
        fault = None if np.isfinite(bits).all() else "the loss is not finite on held-out text"
        if arguments["certify"] and fault is None:
            fault = _wrong_size(params, settings, vocabulary)
            fault = fault or _uncertified(program, params, text, batch, time, vocabulary)
        kept = [round(float(value), 7) for value in bits if np.isfinite(bits).all()]
        scores[name] = {"bits": kept, "fault": fault}
    return {"scores": scores}


def _evaluator(program: Program, token_bytes: np.ndarray) -> Callable[[Any, np.ndarray], jax.Array]:
    """(parameters, windows) -> bits of each window's scored tokens."""

    @jax.jit
    def bits(log_probs: jax.Array, next_tokens: jax.Array) -> jax.Array:
        chosen = jnp.take_along_axis(log_probs, next_tokens[..., None], axis=-1)[..., 0]
        return bits_of_windows(-chosen / jnp.log(2.0), next_tokens, token_bytes)

    return lambda params, windows: bits(program(params, windows[:, :-1]), windows[:, 1:].astype(np.int32))


def restored(checkpoint: Path, names: Sequence[str]) -> list[jax.Array]:
    """The checkpoint's parameters, in the order of `names`."""
    found = parameters(checkpoint)
    if sorted(found) != sorted(names):
        raise ValueError(f"the program has other parameters than the checkpoint: {sorted({*found} ^ {*names})[:3]}")
    return [found[name] for name in names]


def parameters(checkpoint: Path) -> dict[str, jax.Array]:
    """Name -> array of a checkpoint's parameters."""
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore(checkpoint.absolute())
    # A variable is stored as {"value": array}.
    return {_name(path).removesuffix("/value"): leaf for path, leaf in jax.tree.leaves_with_path(state["params"])}


def loaded(
    serialized: bytes, params: Sequence[jax.Array], batch: int, time: int, dtype: str, vocabulary: int
) -> Program:
    """The program, if it is one of tokens and parameters to logits, and stays on the device.

    It is given back with log-probabilities (nats) in the place of logits: what is added to all of them changes no loss.

    Raises:
      ValueError: if it is not.
    """
    if len(serialized) > _MOST_PROGRAM_BYTES:
        raise ValueError(f"the program has {len(serialized):,} bytes, more than {_MOST_PROGRAM_BYTES:,}")
    exported = export.deserialize(bytearray(serialized))
    given = [(leaf.shape, leaf.dtype) for leaf in params] + [((batch, time), np.dtype(dtype))]
    if [(aval.shape, aval.dtype) for aval in exported.in_avals] != given:
        raise ValueError("the program takes something else than the parameters and the tokens")
    if [(aval.shape, aval.dtype) for aval in exported.out_avals] != [((batch, time, vocabulary), np.dtype("float32"))]:
        raise ValueError("the program gives something else than logits")
    called = {name.strip('"') for name in re.findall(r'custom_call\s*@("[^"]*"|[\w.$]+)', exported.mlir_module())}
    if foreign := sorted(name for name in called if not _ROUTINES.fullmatch(name)):
        raise ValueError(f"the program calls {foreign[0]}")
    return jax.jit(
        lambda params, tokens: jax.nn.log_softmax(exported.call(params, tokens)),
        compiler_options=compiler_options(level=1),
    )


@jax.jit
def _moves(log_probs: jax.Array, first: jax.Array) -> jax.Array:
    """Nats by which any log-probability moved: [batch, time]. On the device: a batch of them may be gigabytes."""
    return jnp.abs(log_probs - first).max(axis=-1)


# Whether the certificate still holds.


def _wrong_size(params: Sequence[jax.Array], settings: ModelSettings, vocabulary: int) -> str | None:
    size, (least, most) = sum(leaf.size for leaf in params), expected_params(settings, vocabulary)
    if least <= size <= most:
        return None
    return f"the checkpoint has {size:,} parameters where the harness gives {least:,} to {most:,}"


def _uncertified(
    program: Program, params: Any, windows: np.ndarray, batch: int, time: int, vocabulary: int
) -> str | None:
    """What no longer holds on real text: finite, the same again, causal, each batch element by itself."""
    generator = np.random.default_rng(0)
    rows = np.resize(windows[:, :-1], (batch, time))
    first = program(params, rows)
    if not bool(jnp.isfinite(first).all()):
        return "log-probabilities are not finite on held-out text"
    if not float(_moves(program(params, rows), first).max()) <= _MOVED:
        return "the same text gives other log-probabilities the second time"
    for run in range(_CUT_RUNS):
        changed = rows.copy()
        cuts = generator.integers(1, time, batch) if run else np.full(batch, time - 1)
        for row, cut in enumerate(cuts):
            changed[row, cut:] = generator.integers(0, vocabulary, time - cut)
        kept = run % batch if batch > 1 else None
        if kept is not None:  # this row stays: what moves in it came from the others
            changed[kept], cuts[kept] = rows[kept], time
        moved = np.asarray(_moves(program(params, changed), first))
        for row, cut in enumerate(cuts):
            worst = int(np.argmax(moved[row, :cut]))
            if not moved[row, worst] <= _MOVED:
                seen = f"tokens from {cut} on" if row != kept else "the other batch elements"
                return (
                    f"after training, log-probabilities at {worst} moved by {moved[row, worst]:.1e} nats when {seen} "
                    "changed"
                )
    return None


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
