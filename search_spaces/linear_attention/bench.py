"""The ops' part of `make bench`: chunk-parallel forms against the recurrences that define them, as `results/ops.json`.

    python -m search_spaces.linear_attention.bench            about ten minutes on two cores

Forward and backward with respect to every input, at the default training shape and growing time. On a GPU it goes on
to compare with flash-linear-attention (see `bench_gpu`).
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Column, Table

from nas.terminal import make_console
from search_spaces.linear_attention import bench_gpu, ops

OUTPUT = Path("results/ops.json")
TIMES = (256, 512, 1024, 2048, 4096)
SEEDS = 4  # under one vmap
GOAL_TIME, GOAL_RATIO, GOAL_EXPONENT, GOAL_VMAP = 2048, 10.0, 1.1, 1.2
_LEAST_RUNS, _LEAST_SECONDS = 3, 0.3  # of one timing, after a first run that is not counted


@dataclass(frozen=True)
class Shape:
    """Of every input; keys and values have the same `dim`. The default is that of training."""

    batch: int = 4
    time: int = 256
    heads: int = 2
    dim: int = 32


@dataclass(frozen=True)
class Op:
    """A state update in both forms.

    Attributes:
      inputs: names of its arguments, as in `DRAWS`, without the decay.
      decay: "" for none, "per head" or "per channel".
      steps: keys and values for each token.
    """

    chunked: Callable[..., Any]
    recurrent: Callable[..., Any]
    inputs: str
    decay: str = ""
    steps: int = 1

    def arguments(self, shape: Shape) -> dict[str, jax.Array]:
        """Drawn as a mixer would make them."""
        longer = replace(shape, time=self.steps * shape.time)
        names = self.inputs.split()
        drawn = {name: DRAWS[name](longer if name in ("k", "v", "beta") else shape) for name in names}
        return drawn | ({"log_decay": DRAWS[self.decay](shape)} if self.decay else {})


@dataclass(frozen=True)
class Timing:
    """One op at one length. `ratio` is how many times faster the chunk-parallel form is."""

    op: str
    time: int
    recurrence_ms: float
    chunked_ms: float
    ratio: float
    compile_seconds: float  # of the chunk-parallel form


def _normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _vectors(seed: int, s: Shape) -> jax.Array:
    return _normal(seed, s.batch, s.time, s.heads, s.dim)


def _scalars(seed: int, s: Shape) -> jax.Array:
    return _normal(seed, s.batch, s.time, s.heads)


DRAWS: Mapping[str, Callable[[Shape], jax.Array]] = {
    "q": lambda s: _vectors(0, s),
    "k": lambda s: ops.l2_normalize(_vectors(1, s)),
    "v": lambda s: _vectors(2, s),
    "x": lambda s: _vectors(3, s),
    "beta": lambda s: jax.nn.sigmoid(_scalars(4, s)),
    "a": lambda s: -ops.l2_normalize(_vectors(5, s)),  # with `b` it erases half of what is stored along one key
    "b": lambda s: 0.5 * ops.l2_normalize(_vectors(5, s)),
    "bonus": lambda s: _normal(6, s.heads, s.dim),
    "input_gate": lambda s: _scalars(8, s),
    "log_forget": lambda s: jax.nn.log_sigmoid(3 + _scalars(9, s)),
    "per head": lambda s: jax.nn.log_sigmoid(3 + _scalars(9, s)),
    "per channel": lambda s: jax.nn.log_sigmoid(3 + _vectors(9, s)),
}

LINEAR = (ops.linear_attention, ops.recurrent_linear_attention)
DELTA = (ops.delta_rule, ops.recurrent_delta_rule)
OPS: Mapping[str, Op] = {
    "linear_attention": Op(*LINEAR, "q k v"),
    "linear_attention, per head": Op(*LINEAR, "q k v", "per head"),
    "linear_attention, per channel": Op(*LINEAR, "q k v", "per channel"),
    "linear_attention, per channel, bonus": Op(*LINEAR, "q k v bonus", "per channel"),
    "delta_rule": Op(*DELTA, "q k v beta"),
    "delta_rule, per head": Op(*DELTA, "q k v beta", "per head"),
    "delta_rule, per channel": Op(*DELTA, "q k v beta", "per channel"),
    "delta_rule, per head, 2 steps": Op(*DELTA, "q k v beta", "per head", steps=2),
    "dplr, per channel": Op(ops.dplr, ops.recurrent_dplr, "q k v a b", "per channel"),
    "mlstm": Op(ops.mlstm, ops.recurrent_mlstm, "q k v input_gate log_forget"),
    "linear_recurrence": Op(ops.linear_recurrence, ops.recurrent_linear_recurrence, "x", "per channel"),
}


def main() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch may need room on the same GPU
    console = make_console()
    record: dict[str, Any] = {"command": "make bench", "python": platform.python_version(), "jax": jax.__version__}
    record |= {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "shape": asdict(Shape())}
    timings: list[Timing] = []
    for timing in time_ops(OPS, TIMES, Shape()):
        timings.append(timing)
        console.print(f"{timing.op}, time {timing.time}: {timing.chunked_ms:,.1f} ms, {timing.ratio:.1f} times faster")
    under_vmap = {name: vmap_ratio(op, Shape()) for name, op in OPS.items()}
    record |= {"timings": [asdict(timing) for timing in timings], "exponents": exponents(timings), "vmap": under_vmap}
    if bench_gpu.available():
        record["flash_linear_attention"] = bench_gpu.compare(OPS)
    show(record, console)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"written to {OUTPUT}")


def time_ops(table: Mapping[str, Op], times: Sequence[int], shape: Shape) -> Iterator[Timing]:
    """Every op at every length, as it comes."""
    for name, op in table.items():
        for length in times:
            arguments = op.arguments(replace(shape, time=length))
            slow, _ = milliseconds(gradient(op.recurrent), arguments)
            fast, compiling = milliseconds(gradient(op.chunked), arguments)
            yield Timing(name, length, slow, fast, slow / fast, compiling)


def gradient(function: Callable[..., Any]) -> Callable[[dict[str, jax.Array]], Any]:
    """Arguments by name -> the summed squares of all outputs, the state among them, and the gradient by each."""

    def loss(arguments: dict[str, jax.Array]) -> jax.Array:
        outputs = jax.tree.leaves(function(**arguments))
        return sum((jnp.sum(jnp.square(y.astype(jnp.float32))) for y in outputs), start=jnp.zeros(()))

    return jax.value_and_grad(loss)


def milliseconds(function: Callable[[Any], Any], arguments: Any) -> tuple[float, float]:
    """(ms of the best run: what is slower waited for something else; seconds to lower and compile)."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(arguments).compile()
    compiling = time.perf_counter() - began
    jax.block_until_ready(compiled(arguments))
    runs: list[float] = []
    while len(runs) < _LEAST_RUNS or sum(runs) < _LEAST_SECONDS:
        began = time.perf_counter()
        jax.block_until_ready(compiled(arguments))
        runs.append(time.perf_counter() - began)
    return 1000 * min(runs), compiling


def vmap_ratio(op: Op, shape: Shape) -> float:
    """Time of `SEEDS` problems under one vmap over that of as many one after the other."""
    arguments = op.arguments(shape)
    stacked = jax.tree.map(lambda x: jnp.stack([x] * SEEDS), arguments)
    together, _ = milliseconds(jax.vmap(gradient(op.chunked)), stacked)
    one, _ = milliseconds(gradient(op.chunked), arguments)
    return together / (SEEDS * one)


def exponents(timings: Sequence[Timing]) -> dict[str, float]:
    """Op -> slope of log ms on log time of its chunk-parallel form, by least squares."""
    points: dict[str, list[Timing]] = {}
    for timing in timings:
        points.setdefault(timing.op, []).append(timing)
    return {
        name: float(np.polyfit(np.log([t.time for t in found]), np.log([t.chunked_ms for t in found]), 1)[0])
        for name, found in points.items()
    }


def show(record: dict[str, Any], console: Console) -> None:
    """Prints every timing, and each op's figures beside the goals."""
    title = f"forward and backward on {record['device']}, {record['cores']} cores, {record['shape']}"
    table = Table("op", *_right("time", "recurrence ms", "chunked ms", "ratio", "compile s"), title=title)
    for t in record["timings"]:
        columns = (t["recurrence_ms"], t["chunked_ms"], t["ratio"], t["compile_seconds"])
        table.add_row(t["op"], f"{t['time']:,}", *(f"{value:,.1f}" for value in columns))
    console.print(table)
    against = {t["op"]: t["ratio"] for t in record["timings"] if t["time"] == GOAL_TIME}
    goals = Table("op", *_right(f"ratio at {GOAL_TIME:,}", "exponent of time", f"{SEEDS} under vmap"), title="goals")
    goals.add_row("goal", f">= {GOAL_RATIO:g}", f"<= {GOAL_EXPONENT:g}", f"<= {GOAL_VMAP:g}", style="bold")
    for name, exponent in record["exponents"].items():
        ratio = f"{against[name]:.1f}" if name in against else ""
        goals.add_row(name, ratio, f"{exponent:.2f}", f"{record['vmap'][name]:.2f}")
    console.print(goals)
    for row in record.get("flash_linear_attention", ()):
        console.print(row, markup=False, soft_wrap=True)


def _right(*headers: str) -> list[Column]:
    return [Column(header, justify="right") for header in headers]


if __name__ == "__main__":
    main()
