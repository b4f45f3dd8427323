"""Training of one candidate, from source to bits per byte. Runs in the box; reads top to bottom.

Every trial sees the same batches in the same order, because a batch is a function of (seed, step) alone: so differences
between candidates are paired, and a trial that goes on from a checkpoint goes on exactly.
"""

import errno
import json
import math
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

from nas import compiled
from nas.devices import ONE, Devices, DevicesError, on_one, spread
from nas.gate.cost import flops
from nas.loading import load_mixer
from nas.model import VOCABULARY, LanguageModel, bits_per_token
from nas.preemption import Notice
from nas.settings import ModelSettings, TrainSettings
from nas.tasks.bits import bits_of_windows, bits_per_byte
from nas.tasks.feed import Feed, held_out_windows, is_resident
from nas.tasks.reader import read_tokens

Send = Callable[[dict[str, Any]], None]
Measured = tuple[float, float]  # bits per byte, and their standard error over the held-out windows
UNMEASURED: Measured = (math.nan, math.nan)
_FLOOR_FRACTION = 0.25  # of the budget: by then a model worth its time beats a table of byte pairs,
_FLOOR_STEPS = 100  # unless it has had fewer steps than these
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
BYTES = np.ones(VOCABULARY, np.uint16)  # where tokens are bytes, each stands for one


def boxed(arguments: dict[str, Any], send: Send) -> dict[str, Any]:
    """Entry point in the box: `train` with JSON in and JSON out, and the splits' files handed to it open.

    Sends {"rung": {...}, "decided": bool} at each rung; decided if the trial has gone on from it before. Returns
    {"trained": True} or {"crashed": {"cause", "reason"}}.
    """
    use_platform(arguments)
    if arguments["keeps_compiled"]:
        compiled.use(Path(arguments["checkpoints"]).parent)
    files, settings, notice = arguments["files"], TrainSettings(**arguments["train"]), Notice()
    try:
        devices = spread(arguments["devices"], settings.microbatch)
    except DevicesError as error:
        return crashed("devices", str(error))
    return train(
        source=arguments["source"],
        model_settings=ModelSettings(**arguments["model"]),
        settings=settings,
        data={split: read_tokens(files[split], arguments["dtype"]) for split in ("train", "validation")},
        validation_windows=arguments["validation_windows"],
        rungs=arguments["rungs"],
        floor=arguments["floor"],
        checkpoints=Path(arguments["checkpoints"]),
        send=send,
        token_bytes=np.array(read_tokens(files["token_bytes"], "uint16")),
        device_bytes=arguments["device_bytes"],
        devices=devices,
        preempted=lambda: notice.given,
    )


def use_platform(arguments: Mapping[str, Any]) -> None:
    """The CPU, unless this call was given the accelerators: JAX would try those that it can't open, and fail."""
    if not arguments["accelerator"]:
        jax.config.update("jax_platforms", "cpu")


def train(
    source: str,
    model_settings: ModelSettings,
    settings: TrainSettings,
    data: Mapping[str, np.ndarray],
    validation_windows: int,
    rungs: Sequence[int],
    floor: float | None,
    checkpoints: Path,
    send: Send,
    token_bytes: np.ndarray = BYTES,
    device_bytes: int = 0,
    devices: Devices = ONE,
    preempted: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains a candidate up to the last of `rungs` (optimizer steps), measuring and checkpointing at each.

    `data` has the tokens to train on, "train", and those that each rung is measured on, "validation" (integers
    [tokens]), and `token_bytes` how many bytes of text each token stands for (uint16 [vocabulary]). Training tokens of
    no more than `device_bytes` are kept on an accelerator. Each of `devices` has its share of every batch.

    Every architecture, baselines included, is trained up to the first rung with each peak learning rate of the same
    grid, by the same seed and batches, and goes on with the one that has the fewest bits per byte there: so none wins
    because the one rate of the search happened to be its own.

    Goes on from the newest complete checkpoint in `checkpoints`. Above `floor` bits per byte at a rung
    from a quarter of its budget on, and not before 100 steps, it ends. Once `preempted`, and past the first rung, it
    writes a checkpoint of where it is and ends as crashed("preempted"): a later call goes on from there.
    """
    # The compiled programs, and where an earlier process came to.
    mixer, vocabulary = load_mixer(source), len(token_bytes)
    measure = partial(scored_bits, token_bytes=token_bytes)
    programs = Programs(mixer, model_settings, settings, language_loss, measure, vocabulary, devices)
    state, constants = programs.initialize(settings.seed)
    step, state, measured, seconds = restore(checkpoints, state)
    for earlier in measured:  # the scheduler may not have heard, or not have decided on the one it stands at
        send({"rung": earlier, "decided": earlier["step"] < step})

    # The held-out windows: the same for every candidate.
    validation = held_out_windows(data["validation"], validation_windows, settings.time)
    one_window = jax.ShapeDtypeStruct((1, settings.time + 1), validation.dtype)
    flops_per_token = flops(programs.measure, state["params"], constants, one_window) / settings.time
    size = dispatch_size(rungs, settings.steps_per_dispatch)
    clock = Clock(seconds)
    feed = Feed(data["train"], settings, size, is_resident(data["train"], device_bytes), devices)

    def advanced(state: Any, learning_rate: float, step: int, rung: int) -> tuple[Any, Measured, int, int | None]:
        """(state, what is measured of it, its step, the first step whose loss was not finite).

        It is that of the rung; without a measurement one before it, if training is preempted.
        """
        firsts = range(step, rung, size)
        for first, windows in zip(firsts, feed(firsts), strict=True):
            with clock:
                state, computed = programs.steps(state, constants, learning_rate, windows)
                losses = np.asarray(computed)
            if not np.isfinite(losses).all():
                return state, UNMEASURED, first + size, first + int(np.argmin(np.isfinite(losses))) + 1
            if step and preempted() and first + size < rung:
                return state, UNMEASURED, first + size, None
        bits = evaluate_windows(programs.evaluator(constants), state["params"], validation, settings.microbatch)
        return state, bits_per_byte(bits, validation, token_bytes), rung, None

    # Steps, then a measurement and a checkpoint, at each rung; to the first one with each learning rate of the grid.
    learning_rate = measured[-1]["learning_rate"] if measured else 0.0
    for rung in [rung for rung in rungs if rung > step]:
        if step == 0:
            rates = [multiple * settings.learning_rate for multiple in settings.grid]
            tries = ((advanced(programs.initialize(settings.seed)[0], rate, 0, rung), rate) for rate in rates)
            (state, (bits, stderr), step, diverged), learning_rate = min(
                tries, key=lambda tried: _or_more(tried[0][1][0])
            )
        else:
            state, (bits, stderr), step, diverged = advanced(state, learning_rate, step, rung)
        if diverged:
            return crashed("diverged", f"the training loss was not finite at step {diverged} of {settings.steps}")
        if step < rung:
            refused = save(checkpoints, step, state, measured, clock.seconds)
            return crashed("preempted", f"at step {step}" if refused is None else f"its checkpoint: {refused}")
        if not math.isfinite(bits):
            return crashed("diverged", f"the validation loss was not finite at step {step} of {settings.steps}")
        measured.append(
            {
                "bits_per_byte": bits,
                "stderr": stderr,
                "step": step,
                "learning_rate": learning_rate,
                "train_seconds": clock.seconds,
                "tokens_per_second": clock.calls_per_second * size * settings.batch * settings.time,
                "flops_per_token": flops_per_token,
                "params": sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
        if refused := save(checkpoints, step, state, measured, clock.seconds):
            return crashed("disk", f"the checkpoint of step {step} can't be written: {refused}")
        send({"rung": measured[-1], "decided": False})
        late = max(_FLOOR_FRACTION * settings.steps, _FLOOR_STEPS) <= step < settings.steps
        if floor is not None and late and bits > floor:
            reached = f"{bits:.3f} bits per byte after step {step}"
            return crashed("floor", f"{reached}, above the bigram's {floor:.3f}")
        if preempted() and step < rungs[-1]:
            return crashed("preempted", f"at step {step}")
    return {"trained": True}


def mean_over_parts(compute: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """The mean of what `compute` gives for each of `parts` equal parts of a batch, computed one after the other."""
    if parts == 1:
        return compute(batch)
    # A part takes rows from all over the batch: so each device has its share of it where it has its share of the batch.
    split = jax.tree.map(lambda rows: jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0), batch)
    shapes = jax.eval_shape(compute, jax.tree.map(lambda rows: rows[0], split))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, compute(part)), None), nothing, split)
    return jax.tree.map(lambda x: x / parts, total)


def _or_more(bits: float) -> float:
    """More than any where it is not finite, so that another learning rate is taken."""
    return bits if math.isfinite(bits) else math.inf


class Programs:
    """One architecture's compiled programs: the same for every seed and learning rate, since both are traced.

    Args:
      mixer: the class of the token mixer.
      settings: steps (of the schedule), clipping, weight decay; its seed, learning rate and grid are not looked at.
      loss: (model, batch) -> mean loss in nats, a scalar.
      measure: (model, batch) -> what is evaluated.
      vocabulary: of tokens.
      devices: over which `steps` and `evaluate` share out a batch. Several runs side by side are for one.
    """

    def __init__(
        self,
        mixer: type,
        model_settings: ModelSettings,
        settings: TrainSettings,
        loss: Callable[[Any, Any], jax.Array],
        measure: Callable[[Any, Any], Any],
        vocabulary: int = VOCABULARY,
        devices: Devices = ONE,
    ):
        optimizer = make_optimizer(settings)

        def create(seed: Any) -> LanguageModel:
            return LanguageModel(mixer, model_settings, vocabulary, rngs=nnx.Rngs(jax.random.key(seed)))

        def initialize(seed: jax.Array) -> Any:
            _, params, rest = nnx.split(create(seed), nnx.Param, ...)  # type: ignore[misc]
            # `jnp.full(shape, 0.5)` is weakly typed, and is not after a step: all would be compiled twice for that.
            params = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), params)
            return {"params": params, "optimizer": optimizer.init(params)}, rest

        graph = nnx.graphdef(nnx.eval_shape(lambda: create(0)))

        def model(params: Any, constants: Any) -> Any:
            return nnx.merge(graph, params, constants)

        def steps(state: Any, constants: Any, learning_rate: jax.Array, batches: Any) -> tuple[Any, jax.Array]:
            def update(state: Any, batch: Any) -> tuple[Any, jax.Array]:
                def value_and_gradient(part: Any) -> tuple[jax.Array, Any]:
                    return jax.value_and_grad(lambda params: loss(model(params, constants), part))(state["params"])

                value, gradient = mean_over_parts(value_and_gradient, batch, settings.accumulate)
                updates, optimizer_state = optimizer.update(gradient, state["optimizer"], state["params"])
                updates = jax.tree.map(lambda update: learning_rate.astype(update.dtype) * update, updates)
                return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer_state}, value

            return jax.lax.scan(update, state, batches)

        options = compiler_options(level=1)
        self.model = model
        self.measure = lambda params, constants, batch: measure(model(params, constants), batch)
        # In one program, compiled without optimization since it is short: op by op, or optimized, it takes seconds.
        whole = devices.whole
        self._initialize = jax.jit(
            initialize, compiler_options=compiler_options(level=0), **devices.placed(whole, outputs=whole)
        )
        self._initialize_all = jax.jit(jax.vmap(initialize), compiler_options=compiler_options(level=0))
        stepping = devices.placed(whole, whole, whole, devices.shared(axis=1), outputs=whole)
        self._steps = jax.jit(steps, donate_argnums=0, compiler_options=options, **stepping)
        self._steps_of_all = jax.jit(jax.vmap(steps), donate_argnums=0, compiler_options=options)
        evaluating = devices.placed(whole, whole, devices.shared(axis=0), outputs=devices.shared(axis=0))
        self._evaluate = jax.jit(self.measure, compiler_options=options, **evaluating)

    def initialize(self, seed: int) -> tuple[dict[str, Any], Any]:
        """({"params", "optimizer"}, what is not trained) of a fresh model."""
        return self._initialize(np.uint32(seed))  # type: ignore[no-any-return]

    def steps(self, state: Any, constants: Any, learning_rate: float, batches: Any) -> tuple[Any, jax.Array]:
        """(state, loss in nats [steps]) after one step for each of `batches` [steps, ...]. `state` is used up.

        `learning_rate` is the schedule's peak.
        """
        return self._steps(state, constants, np.float32(learning_rate), batches)  # type: ignore[no-any-return]

    def initialize_all(self, seeds: Sequence[int]) -> tuple[dict[str, Any], Any]:
        """`initialize` for several seeds: every array has a leading axis [runs]."""
        return self._initialize_all(np.asarray(seeds, np.uint32))  # type: ignore[no-any-return]

    def steps_of_all(
        self, states: Any, constants: Any, learning_rates: Sequence[float], batches: Any
    ) -> tuple[Any, jax.Array]:
        """`steps` for several runs side by side under `vmap`: everything has a leading axis [runs].

        Faster than one after the other where a run alone does not fill the device; hardly so on a CPU.
        """
        rates = np.asarray(learning_rates, np.float32)
        return self._steps_of_all(states, constants, rates, batches)  # type: ignore[no-any-return]

    def evaluate(self, params: Any, constants: Any, batch: Any) -> Any:
        """`measure` of one batch."""
        return self._evaluate(params, constants, batch)

    def evaluator(self, constants: Any) -> Callable[[Any, Any], Any]:
        """(params, batch) -> `measure` of one batch."""
        return lambda params, batch: self._evaluate(params, constants, batch)


def scored_bits(model: Any, windows: jax.Array, token_bytes: np.ndarray = BYTES) -> jax.Array:
    """Bits of each window's tokens that stand for text: float32 [windows]."""
    return bits_of_windows(bits_per_token(model, windows), windows[:, 1:].astype(jnp.int32), token_bytes)


def language_loss(model: Any, windows: jax.Array) -> jax.Array:
    """Mean nats of a next token, of those too that stand for no text: a model has to know where a document ends."""
    return bits_per_token(model, windows).mean() * math.log(2)


class Clock:
    """Seconds spent in its `with` blocks, and their pace without the first one, which compiles.

    Args:
      seconds: spent before, by an earlier process.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._calls: list[float] = []

    @property
    def calls_per_second(self) -> float:
        """0 until the second call."""
        return (len(self._calls) - 1) / sum(self._calls[1:]) if len(self._calls) > 1 else 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._calls.append(time.perf_counter() - self._started)
        self.seconds += self._calls[-1]


def crashed(cause: str, reason: str) -> dict[str, Any]:
    return {"crashed": {"cause": cause, "reason": reason}}


def compiler_options(level: int) -> dict[str, Any]:
    """What makes XLA compile fast on a CPU: half the time of the defaults at level 1, with steps as fast.

    A candidate is compiled once and trained for seconds. Level 0 is for programs that run once.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False}


def make_optimizer(settings: TrainSettings) -> optax.GradientTransformation:
    """AdamW with clipping, a linear warm-up and a cosine decay to a tenth. Vectors are not decayed.

    At a peak learning rate of 1: AdamW's updates are proportional to it, so whoever applies them multiplies them.
    """
    warmup = round(settings.warmup * settings.steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else 1.0,
        peak_value=1.0,
        warmup_steps=warmup,
        decay_steps=max(settings.steps, warmup + 1),
        end_value=0.1,
    )
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule, weight_decay=settings.weight_decay, mask=_matrices),
    )


def _matrices(params: Any) -> Any:
    """Which parameters are decayed: matrices. Inside the stacked layers a vector has two axes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim >= (3 if "layers" in jax.tree_util.keystr(path) else 2), params
    )


def evaluate_windows(
    evaluate: Callable[[Any, np.ndarray], Any], params: Any, windows: np.ndarray, batch: int
) -> np.ndarray:
    """What `evaluate` gives for each window: float64 [windows]. In batches of one compiled shape, the last padded."""
    short = -len(windows) % batch
    padded = (
        np.concatenate([windows, windows[:short]])
        if short <= len(windows)
        else np.resize(windows, (len(windows) + short, windows.shape[1]))
    )
    parts = [np.asarray(evaluate(params, part)) for part in np.split(padded, len(padded) // batch)]
    return np.concatenate(parts)[: len(windows)].astype(np.float64)


def dispatch_size(rungs: Sequence[int], most: int) -> int:
    """Steps per call of the compiled program: the largest number up to `most` that divides every stretch between rungs.

    One size is one program, and compiling one takes longer than a hundred steps of a small model.
    """
    stretches = math.gcd(*rungs)
    return max(size for size in range(1, most + 1) if stretches % size == 0)


def save(checkpoints: Path, step: int, state: Any, measured: list[dict[str, Any]], seconds: float) -> str | None:
    """Writes one checkpoint with what was measured up to it, and its seconds of training; removes the older ones.

    It is there whole or not at all. Returns what the disk said if it did not take it: the one before is as it was then.
    """
    target = (checkpoints / f"{step:08d}").absolute()
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".json").write_text(json.dumps({"measured": measured, "train_seconds": seconds}))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(target, on_one(state), force=True)
    except Exception as error:
        if (refused := disk_fault(error)) is None:
            raise
        for partial_ in checkpoints.glob(f"{target.name}*"):
            shutil.rmtree(partial_, ignore_errors=True) if partial_.is_dir() else partial_.unlink(missing_ok=True)
        return refused
    for older in complete_checkpoints(checkpoints)[:-1]:
        shutil.rmtree(checkpoints / older, ignore_errors=True)
    return None


def disk_fault(error: BaseException | None) -> str | None:
    """What the disk said, if that is what an error, or the one behind it, came from.

    The libraries that write arrays raise errors of their own, which hold it as words.
    """
    while error is not None:
        for number in _DISK_ERRORS:
            if os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def restore(checkpoints: Path, state: Any) -> tuple[int, Any, list[dict[str, Any]], float]:
    """(step, state, what was measured at each rung, seconds of training) of the newest checkpoint.

    (0, the given state, nothing, 0) if there is none.
    """
    complete = complete_checkpoints(checkpoints)
    if not complete:
        return 0, state, [], 0.0
    newest = (checkpoints / complete[-1]).absolute()
    shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(newest, shapes)
    beside = json.loads(newest.with_suffix(".json").read_text())
    return int(newest.name), restored, beside["measured"], beside["train_seconds"]


def complete_checkpoints(checkpoints: Path) -> list[str]:
    """Names of the finished checkpoints, oldest first. Orbax renames a folder to its name only when it is whole."""
    if not checkpoints.is_dir():
        return []
    return sorted(entry.name for entry in checkpoints.iterdir() if entry.name.isdigit())
