"""Our chunk-parallel forms in plain XLA against flash-linear-attention's Triton kernels, on one GPU.

(Yang and Zhang 2024, https://github.com/fla-org/flash-linear-attention; the signatures are those of release 0.6.0.)
`make bench` comes here where JAX has a GPU and torch, triton and fla are installed. It has not been run: the project
was built without a GPU.
"""

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

BATCH, TIME, HEADS, DIM = 8, 4096, 16, 128
THEIRS = {  # our op -> their function and the names of its arguments, the log decay last if there is one
    "linear_attention, per head": ("simple_gla.chunk_simple_gla", "q k v g"),
    "linear_attention, per channel": ("gla.chunk_gla", "q k v g"),
    "delta_rule": ("delta_rule.chunk_delta_rule", "q k v beta"),
    "delta_rule, per head": ("gated_delta_rule.chunk_gated_delta_rule", "q k v beta g"),
    "delta_rule, per channel": ("kda.chunk_kda", "q k v beta g"),
    "dplr, per channel": ("rwkv7.chunk_rwkv7", "r k v a b w"),
}


def available() -> bool:
    """Whether JAX has a GPU, and what it is compared with is installed."""
    import jax  # here and below, not above: the process that runs torch must not start JAX

    return jax.default_backend() == "gpu" and all(importlib.util.find_spec(name) for name in ("torch", "triton", "fla"))


def compare(ops: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{"op", "ours_ms", "theirs_ms"}]: forward and backward, in bfloat16 with log decays in float32."""
    import jax.numpy as jnp

    from search_spaces.linear_attention.bench import Shape, gradient, milliseconds

    command = [sys.executable, "-m", "search_spaces.linear_attention.bench_gpu"]  # torch's memory and JAX's don't meet
    theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rows = []
    for name in THEIRS:
        arguments = ops[name].arguments(Shape(BATCH, TIME, HEADS, DIM))
        half = {key: x if key == "log_decay" else x.astype(jnp.bfloat16) for key, x in arguments.items()}
        ours, _ = milliseconds(gradient(ops[name].chunked), half)
        rows.append({"op": name, "ours_ms": ours, "theirs_ms": theirs[name]})
    return rows


def their_milliseconds(function: str, names: str, decay: str) -> float:
    """Best time of one of their functions, forward and backward through outputs and state."""
    import torch
    import triton

    module, _, attribute = f"fla.ops.{function}".rpartition(".")
    operation = getattr(importlib.import_module(module), attribute)

    def draw(name: str) -> Any:
        scalar = name == "beta" or (name == "g" and decay == "per head")
        x = torch.randn(BATCH, TIME, HEADS, *(() if scalar else (DIM,)), device="cuda")
        if name in ("g", "w"):
            return torch.nn.functional.logsigmoid(3 + x).requires_grad_()
        # `a` and `b` are drawn apart: were they long, their product would stretch the state.
        unit = torch.nn.functional.normalize(x, dim=-1)
        by_name = {"k": unit, "a": -0.1 * unit, "b": 0.1 * unit, "beta": x.sigmoid()}
        return by_name.get(name, x).bfloat16().requires_grad_()

    arguments = {name: draw(name) for name in names.split()}

    def run() -> None:
        outputs = operation(**arguments, output_final_state=True)
        torch.autograd.grad(sum(y.float().square().sum() for y in outputs), list(arguments.values()))

    return float(triton.testing.do_bench(run, return_mode="min"))


if __name__ == "__main__":
    print(json.dumps({op: their_milliseconds(*theirs, op.partition(", ")[2]) for op, theirs in THEIRS.items()}))
