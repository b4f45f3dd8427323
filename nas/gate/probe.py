"""A candidate, loaded and traced once for all checks.

Everything a candidate computes is computed here, traced and never eagerly: so it is trained too. Few shapes are
compiled, each once, with parameters as arguments; all other lengths are traced only. Where a program runs a few times
the compiler is told to hurry: compiling is what a verdict waits for. The program at the training shape, [train_batch,
train_time], runs hundreds of times and is compiled as for training.
"""

import functools
import linecache
import re
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from nas.gate import program as programs
from nas.gate.double import NoDouble, in_double
from nas.gate.settings import Fault, GateSettings, one_line
from nas.gate.watch import Watch
from nas.loading import ContractError, load_mixer
from nas.types import source_id

# Measured on a gated delta net at [4, 256, 64], one core: 0.11 s to compile and 9 ms to run, against 0.38 s and 2 ms.
# Code that is split over threads takes a third longer on one.
HURRY: dict[str, Any] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
OFTEN: dict[str, Any] = {**HURRY, "xla_backend_optimization_level": "1"}

# What the inputs are like: a leak may open for some alone. A mixer sits behind an RMSNorm ("normed"), and the first
# one sees the same few embeddings again and again ("words").
KINDS = ("plain", "normed", "words", "small", "large", "shifted")
_SCALES = {"small": 0.1, "large": 10.0}
_WORDS = 96
_ROWS_TOKENS = 65_536  # of one run at the training length: above it fewer rows than the training batch are run
_CROWD = 17  # a batch that no check uses otherwise, and larger than those of small searches


class Probe:
    """One candidate at `settings`' shapes, with drawn parameters and compiled programs.

    Attributes:
      train: training length; `short` and `long` frame it, are multiples of no chunk, and `long` differs by candidate.
      rows: sequences at the training length: the training batch, where that is affordable.
      crowd: sequences at the short length: more than in training, where that is affordable.
      initial, near, bold: flat parameters as initialised; all moved off their initial values; all drawn anew, large.
      up, down: all parameters moved far to one side: what a threshold keeps shut opens in one of them.
      kept: numbers that the mixer keeps in other variables than `nnx.Param`.
    """

    def __init__(self, source: str, settings: GateSettings):
        self.source, self.settings = source, settings
        self.filename = f"candidate_{source_id(source)}.py"
        digest = int(source_id(source), 16)
        self.train = settings.train_time
        self.short, self.long = 3 * self.train // 8 + 1, 4 * self.train + 1 + 2 * (digest % 16)
        self.rows = max(1, min(settings.train_batch, _ROWS_TOKENS // self.train))
        self.crowd = max(_CROWD, min(2 * settings.train_batch + 1, _ROWS_TOKENS // self.short))
        self.state_writes: set[str] = set()
        self.watch: Watch | None = None
        self.generator = np.random.default_rng(digest)
        self._compiled: dict[Any, Any] = {}
        self._traces: dict[Any, Any] = {}
        outside = Watch()
        with self.candidate():
            self.mixer = load_mixer(source)
        module = self._globals()
        self._construct()
        with self.candidate():  # it asks the candidate's objects for their repr
            outside.add(module, self.graph)
        self.watch = outside
        self.see_unchanged()

    def see_unchanged(self) -> None:
        """Nothing that the candidate could write to is another than before.

        Raises:
          Fault: of `purity`, naming what changed.
        """
        with self.candidate("purity"):
            changed = self.watch.changed() if self.watch is not None else None
        if changed:
            raise Fault("purity", f"a call changed {changed}")

    # The candidate's failures.

    @contextmanager
    def candidate(self, check: str = "contract") -> Iterator[None]:
        """Whatever the candidate raises inside becomes a `Fault` with its line, never a traceback of the engine's."""
        try:
            yield
        except (Fault, NoDouble):
            raise
        except jax.errors.UnexpectedTracerError as error:
            where = self._where(error)
            raise Fault("purity", f"a value of one call was kept and used in another{where}") from None
        except flax.errors.TraceContextError as error:
            where = self._where(error)
            raise Fault("purity", f"a call writes to a variable that was made outside of it{where}") from None
        except ContractError as error:  # from nas.loading
            raise Fault("contract", str(error)) from None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not self._where(error):
                raise  # it was a person
            raised = f"raised {describe_error(error)}{self._where(error)}"
            if self.watch is not None and (changed := self.watch.changed()):
                raise Fault("purity", f"a call changed {changed}, then {raised}") from None
            raise Fault(check, raised) from None

    def _where(self, error: BaseException) -> str:
        line, traceback = None, error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == self.filename:
                line = traceback.tb_lineno
            traceback = traceback.tb_next
        return "" if line is None else f" at line {line}: `{linecache.getline(self.filename, line).strip()[:120]}`"

    def _globals(self) -> dict[str, Any]:
        """The candidate's module, found through its methods."""
        for name in ("__call__", "__init__"):
            method = vars(self.mixer).get(name)
            if not isinstance(method, types.FunctionType) or method.__code__.co_filename != self.filename:
                raise Fault("contract", f"`TokenMixer.{name}` is not a plain method written in the candidate")
        if not issubclass(self.mixer, nnx.Module):
            raise Fault("contract", "`TokenMixer` is not an `nnx.Module`")
        module: dict[str, Any] = vars(self.mixer)["__call__"].__globals__
        return module

    # Construction and parameters.

    def _construct(self) -> None:
        settings = self.settings

        def build() -> Any:
            module = self.mixer(settings.width, settings.heads, rngs=nnx.Rngs(0))
            graph, params, rest = _split(module)
            _plain_variables(module)
            self.graph, self.tree = graph, jax.tree.structure((params, rest))
            self.names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)]
            self.params_count = len(jax.tree.leaves(params))
            return jax.tree.leaves((params, rest))

        def stack() -> Any:
            """As the harness makes its layers, all at once."""
            make = nnx.vmap(lambda rngs: self.mixer(settings.width, settings.heads, rngs=rngs), in_axes=0, out_axes=0)
            self.stacked, params, _ = _split(make(nnx.Rngs(0).split(2)))
            return jax.tree.leaves(params)

        with self.candidate():
            built = jax.jit(lambda: build()).trace()
            graph = self.graph
            _no_arrays_in(graph)
            again = jax.jit(lambda: build()).trace()
            jax.jit(stack).trace()
        if self.stacked != graph:
            raise Fault("purity", "the mixer of a stack of layers is made otherwise than one by itself: make all alike")
        programs.check(built.jaxpr, "construction")
        if graph != self.graph or text_of(built.jaxpr) != text_of(again.jaxpr):
            raise Fault("purity", "constructed twice with the same seed, the mixer differs: keep nothing between calls")
        with self.candidate():
            leaves = _compile(built, HURRY)()
        initial, rest = leaves[: self.params_count], leaves[self.params_count :]
        self.initial: list[np.ndarray] = [np.asarray(leaf) for leaf in initial]
        self.rest: list[np.ndarray] = [np.asarray(leaf) if _is_numeric(leaf) else leaf for leaf in rest]
        if not self.initial:
            raise Fault("contract", "the mixer has no parameters (nnx.Param)")
        self.near: list[np.ndarray] = []
        self.bold: list[np.ndarray] = []
        self.up: list[np.ndarray] = []
        self.down: list[np.ndarray] = []
        for leaf in self.initial:
            scale = fan_in_scale(leaf.shape)
            noise = [scale * self.noise(leaf.shape) for _ in range(3)]
            far = 0.0 if leaf.ndim >= 2 else 2.0
            for drawn, value in (
                (self.near, 0.8 * leaf + noise[0]),
                (self.bold, 3 * noise[1]),
                (self.up, 1.5 * leaf + noise[2] + far),
                (self.down, noise[2] - 0.5 * leaf - far),
            ):
                drawn.append(value.astype(leaf.dtype))
        self.params = sum(leaf.size for leaf in self.initial)
        self.kept = sum(leaf.size for leaf in self.rest if _is_numeric(leaf))

    def shapes_at(self, width: int, heads: int, time: int) -> Any:
        """The abstract output at another width and number of heads."""

        def run(x: Any) -> Any:
            return self.mixer(width, heads, rngs=nnx.Rngs(0))(x)

        with self.candidate():
            return jax.eval_shape(run, jax.ShapeDtypeStruct((2, time, width), jnp.float32))

    def module(self, params: list[Any], rest: list[Any]) -> Any:
        return nnx.merge(self.graph, *jax.tree.unflatten(self.tree, [*params, *rest]))

    # The candidate as functions.

    def apply(self, params: list[Any], rest: list[Any], x: Any) -> Any:
        """The candidate's forward pass as a function; notes what it writes to itself."""
        module = self.module(params, rest)
        y = module(x)
        graph, left_params, left_rest = _split(module)
        if graph != self.graph:
            self.state_writes.add("its attributes")
        elif any(a is not b for a, b in zip(jax.tree.leaves(left_params), params, strict=True)):
            self.state_writes.add("its parameters")
        elif any(a is not b for a, b in zip(jax.tree.leaves(left_rest), rest, strict=True)):
            self.state_writes.add("its variables")
        shape = getattr(y, "shape", None)
        if not isinstance(y, jax.Array) or shape != x.shape:
            what = f"an output of shape {list(shape)}" if shape is not None else f"a {type(y).__name__}"
            raise Fault("contract", f"returns {what} for an input of shape {list(x.shape)}")
        if y.dtype not in (x.dtype, jnp.float32):  # parameters are float32, and the backbone casts what it adds
            raise Fault("contract", f"returns {y.dtype} for an input of {x.dtype}: cast the output to x.dtype")
        return y

    def decode(self, params: list[Any], rest: list[Any], x: Any) -> Any:
        """`step` over time, from `init_state`."""
        module = self.module(params, rest)

        def body(state: Any, x_t: Any) -> tuple[Any, Any]:
            y_t, state = module.step(x_t, state)
            return state, y_t

        _, y = jax.lax.scan(body, module.init_state(x.shape[0]), jnp.swapaxes(x, 0, 1))
        return jnp.swapaxes(y, 0, 1)

    def _pull_back(self, params: list[Any], rest: list[Any], x: Any, cotangent: Any) -> Any:
        y, back = jax.vjp(lambda params, x: self.apply(params, rest, x), params, x)
        return (y, *back(cotangent.astype(y.dtype)))

    # Programs: traced, abstract, so that any length costs the same; and compiled, few.

    def _trace(self, name: str, *avals: Any, fresh: bool = False) -> Any:
        functions = {"forward": self.apply, "gradients": self._pull_back, "decode": self.decode}
        key = (name, *((aval.shape, jnp.dtype(aval.dtype)) for aval in avals))
        if fresh or key not in self._traces:
            function: Any = functions[name]
            with self.candidate("parity" if name == "decode" else "contract"):
                trace = jax.jit(lambda *args: function(*args)).trace(self.initial, self.rest, *avals)
            words = {"forward": "program", "gradients": "gradient's program", "decode": "program of `step`"}
            programs.check(trace.jaxpr, words[name])
            self._traces.setdefault(key, trace)
            return trace
        return self._traces[key]

    def _x(self, time: int, batch: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, time, self.settings.width), dtype)

    def program(self, time: int, batch: int = 1, dtype: Any = jnp.float32, fresh: bool = False) -> core.ClosedJaxpr:
        """The forward pass. `fresh` traces it again."""
        return self._trace("forward", self._x(time, batch, dtype), fresh=fresh).jaxpr

    def gradient_program(self, time: int, batch: int = 1, dtype: Any = jnp.float32) -> core.ClosedJaxpr:
        """Forward and backward pass."""
        return self._trace("gradients", *[self._x(time, batch, dtype)] * 2).jaxpr

    def step_program(self, time: int, batch: int) -> core.ClosedJaxpr:
        """`step` over time."""
        return self._trace("decode", self._x(time, batch)).jaxpr

    def _run(self, name: str, params: list[Any], *arrays: np.ndarray, double: bool = False) -> Any:
        """The outputs of a program, which is compiled where it is not yet: what runs is what was inspected."""
        key = (name, double, *((array.shape, array.dtype) for array in arrays))
        if double:
            return self._run_double(key, self._trace(name, *arrays), [params, self.rest, *arrays])
        if key not in self._compiled:
            often = name == "forward" and arrays[0].shape[:2] == (self.rows, self.train)
            trace = self._trace(name, *arrays)
            with self.candidate():
                self._compiled[key] = _compile(trace, OFTEN if often else HURRY)
        with self.candidate():
            return jax.tree.map(np.asarray, self._compiled[key](params, self.rest, *arrays))

    def _run_double(self, key: Any, trace: Any, arguments: list[Any]) -> Any:
        wide = [_double(leaf) for leaf in jax.tree.leaves(arguments)]
        with self.candidate(), jax.enable_x64(True):
            if key not in self._compiled:
                self._compiled[key] = _compile(jax.jit(in_double(trace.jaxpr)).trace(*wide), HURRY)
            outputs = [np.asarray(out) for out in self._compiled[key](*wide)]
        return jax.tree.unflatten(jax.tree.structure(trace.out_info), outputs)

    def forward(self, params: list[Any], x: np.ndarray, double: bool = False) -> np.ndarray:
        """[batch, time, width] -> the same."""
        y: np.ndarray = self._run("forward", params, x, double=double)
        return y

    def run_again(self, params: list[Any], x: np.ndarray) -> np.ndarray:
        """The forward pass, traced anew."""
        trace = self._trace("forward", x, fresh=True)
        with self.candidate():
            return np.asarray(_compile(trace, HURRY)(params, self.rest, x))

    def gradients(
        self, params: list[Any], x: np.ndarray, cotangent: np.ndarray, double: bool = False
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """(output, gradients of the parameters, gradient of the input)."""
        y, of_params, of_x = self._run("gradients", params, x, cotangent, double=double)
        return y, of_params, of_x

    def decoded(self, params: list[Any], x: np.ndarray, double: bool = False) -> np.ndarray:
        """`step` over time."""
        y: np.ndarray = self._run("decode", params, x, double=double)
        return y

    # Inputs.

    def inputs(self, kind: str, batch: int, time: int) -> np.ndarray:
        """[batch, time, width] of one of `KINDS`."""
        x = self.noise((batch, time, self.settings.width))
        if kind == "words":
            return normed(self.noise((_WORDS, self.settings.width)))[self._text(batch, time)]
        if kind == "normed":
            return normed(x)
        if kind == "shifted":
            return normed(x + 1)
        return np.float32(_SCALES.get(kind, 1.0)) * x

    def _text(self, batch: int, time: int) -> np.ndarray:
        """[batch, time] of numbers below `_WORDS`: few of them often, most seldom, now and then one many times over."""
        often = 1 / np.arange(1, _WORDS + 1)
        words = self.generator.choice(_WORDS, size=(batch, time), p=often / often.sum())
        for row in words:
            for start in self.generator.integers(time, size=1 + time // 40):
                row[start : start + self.generator.integers(2, 32)] = row[start]
        return words

    @functools.cache  # noqa: B019  (a probe lives as long as its verdict)
    def base(self, kind: str) -> np.ndarray:
        """[rows, train, width]: what the inputs of the tests are made from."""
        return self.inputs(kind, self.rows, self.train)

    @functools.cache  # noqa: B019
    def stretched(self, kind: str) -> np.ndarray:
        """[1, long, width]: the first row of `base`, and more of the kind."""
        more = self.inputs(kind, 1, self.long - self.train)
        return np.concatenate([self.base(kind)[:1], more], axis=1)

    @functools.cache  # noqa: B019
    def base_output(self, kind: str, double: bool = False) -> np.ndarray:
        """[rows, train, width]: the outputs for `base`, at `near`."""
        return self.forward(self.near, self.base(kind), double=double)

    @functools.cache  # noqa: B019
    def prefix_output(self, kind: str, time: int, double: bool = False) -> np.ndarray:
        """[time, width]: the output for the first `time` tokens of `stretched`, at `near`."""
        x = self.stretched(kind)[:, :time]
        if time == self.train:
            return self.base_output(kind, double)[0]
        if time == self.long and not double:  # this program is there anyway
            return self.gradients(self.near, x, np.ones_like(x))[0][0]
        rows = self.crowd if time == self.short else 1
        return self.forward(self.near, x.repeat(rows, axis=0), double=double)[0]

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.generator.standard_normal(shape).astype(np.float32)


def _no_arrays_in(graph: Any) -> None:
    """Raises Fault if an array is kept as a plain attribute: Flax takes those for constants of the structure."""
    for name, kept in graph.attributes:
        if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(getattr(kept, "value", None))):
            raise Fault(
                "contract",
                f"the attribute `{name}` is an array made in __init__: keep it as nnx.Param, or, if it is not trained, "
                f"as nnx.Variable, nnx.data or a tuple of numbers",
            )


def _split(module: Any) -> tuple[Any, Any, Any]:
    """(structure, parameters, everything else)."""
    split: Any = nnx.split  # its overloads do not know `...`
    graph, params, rest = split(module, nnx.Param, ...)
    return graph, params, rest


def _plain_variables(module: Any) -> None:
    """Raises Fault if a variable is of a type that the candidate made: it could hide what it holds."""
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        kind = type(variable)
        if isinstance(variable, nnx.Variable) and not kind.__module__.startswith("flax."):
            name = ".".join(map(str, path))
            raise Fault("contract", f"`{name}` is a variable of its own type `{kind.__name__}`: use nnx.Param")


def _compile(trace: Any, options: dict[str, Any]) -> Any:
    lowered = trace.lower()
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
        return lowered.compile()  # another XLA, another set of options


def text_of(program: core.ClosedJaxpr) -> str:
    """A program without the addresses of the functions it was made from."""
    return re.sub(r"0x[0-9a-f]+", "", str(program))


def normed(x: np.ndarray) -> np.ndarray:
    """Each vector divided by its root mean square."""
    return (x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True))).astype(np.float32)


def fan_in_scale(shape: tuple[int, ...]) -> float:
    """1/sqrt(fan in) for a matrix, 0.3 for a vector or a number."""
    return float(np.prod(shape[:-1])) ** -0.5 if len(shape) >= 2 else 0.3


def describe_error(error: BaseException) -> str:
    """`ValueError: first line of the message`."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = ["its message cannot be printed"]
    message = one_line(lines[0], 200) if lines else ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _is_numeric(leaf: Any) -> bool:
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _double(leaf: Any) -> Any:
    dtype = getattr(leaf, "dtype", None)
    return np.asarray(leaf, np.float64) if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else leaf


def rms(array: np.ndarray) -> float:
    """Root mean square, never 0."""
    return float(np.sqrt(np.mean(np.square(array.astype(np.float64))))) + 1e-30
