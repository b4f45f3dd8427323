"""A candidate, loaded and compiled once for all checks.

Everything a candidate computes is computed here, traced and never eagerly: so it is trained too. Few shapes are
compiled, each once, with parameters as arguments; all other lengths are traced only. The compiler is told to hurry:
compiling is what a verdict waits for, not running.
"""

import functools
import linecache
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from nas.gate.double import NoDouble, in_double
from nas.gate.settings import Fault, GateSettings
from nas.gate.watch import Watch
from nas.loading import ContractError, load_mixer
from nas.types import source_id

# Measured on a gated delta net, one core, forward and backward at time 256: 3.3 s by default, 0.8 s with these.
HURRY: dict[str, str | bool] = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": False}


class Probe:
    """One candidate at `settings`' shapes, with drawn parameters and compiled programs.

    Attributes:
      train: training length; `short` and `long` frame it and are multiples of no chunk.
      rows: time -> batch size of the program compiled for it.
      initial, near, bold: flat parameters as initialised; all moved off their initial values; all drawn anew, large.
    """

    def __init__(self, source: str, settings: GateSettings):
        self.source, self.settings = source, settings
        self.filename = f"candidate_{source_id(source)}.py"
        self.train = settings.train_time
        self.short, self.long = 3 * self.train // 8 + 1, 2 * self.train + 1
        self.rows = {self.short: 6, self.train: max(4, min(16, 8192 // self.train)), self.long: 4}
        self.state_writes: set[str] = set()
        self.watch: Watch | None = None
        self.generator = np.random.default_rng(int(source_id(source), 16))
        self._compiled: dict[Any, Any] = {}
        self._programs: dict[Any, core.ClosedJaxpr] = {}
        with self.candidate():
            self.mixer = load_mixer(source)
        module = self._globals()
        self._construct()
        with self.candidate():  # it asks the candidate's objects for their repr
            self.watch = Watch(module, self.graph)

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
            self.graph, self.tree = graph, jax.tree.structure((params, rest))
            self.names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(params)]
            return jax.tree.leaves(params), jax.tree.leaves(rest)

        with self.candidate():
            initial, rest = self._compile(build)()
        self.initial: list[np.ndarray] = [np.asarray(leaf) for leaf in initial]
        self.rest: list[np.ndarray] = [np.asarray(leaf) if _is_numeric(leaf) else leaf for leaf in rest]
        if not self.initial:
            raise Fault("contract", "the mixer has no parameters (nnx.Param)")
        draw = self.generator.standard_normal
        self.near, self.bold = [], []
        for leaf in self.initial:
            noise = [draw(leaf.shape).astype(np.float32) * fan_in_scale(leaf.shape) for _ in range(2)]
            self.near.append((0.8 * leaf + noise[0]).astype(leaf.dtype))
            self.bold.append((3 * noise[1]).astype(leaf.dtype))
        self.params = sum(leaf.size for leaf in self.initial)

    def shapes_at(self, width: int, heads: int, time: int) -> Any:
        """The abstract output at another width and number of heads."""

        def run(x: Any) -> Any:
            return self.mixer(width, heads, rngs=nnx.Rngs(0))(x)

        with self.candidate():
            return jax.eval_shape(run, jax.ShapeDtypeStruct((2, time, width), jnp.float32))

    def module(self, params: list[Any], rest: list[Any]) -> Any:
        return nnx.merge(self.graph, *jax.tree.unflatten(self.tree, [*params, *rest]))

    # Programs.

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
        return (y, *back(cotangent))

    def _x(self, time: int, batch: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, time, self.settings.width), dtype)

    def program(self, time: int, batch: int = 1, dtype: Any = jnp.float32, fresh: bool = False) -> core.ClosedJaxpr:
        """The forward pass, traced: abstract, so that any length costs the same. `fresh` traces it again."""
        key = (time, batch, jnp.dtype(dtype))
        if fresh or key not in self._programs:
            with self.candidate():
                traced = jax.make_jaxpr(lambda *args: self.apply(*args))(
                    self.initial, self.rest, self._x(time, batch, dtype)
                )
            self._programs.setdefault(key, traced)
            return traced
        return self._programs[key]

    def gradient_program(self, time: int) -> core.ClosedJaxpr:
        """Forward and backward pass, traced."""
        with self.candidate():
            x = self._x(time, 1)
            return jax.make_jaxpr(self._pull_back)(self.initial, self.rest, x, x)

    def _compile(self, fn: Callable[..., Any], *avals: Any) -> Any:
        lowered = jax.jit(fn).lower(*avals)
        try:
            return lowered.compile(compiler_options=HURRY)
        except jax.errors.JaxRuntimeError as error:
            if "compile option" not in str(error):
                raise
            return lowered.compile()  # another XLA, another set of options

    def _run(self, name: str, fn: Callable[..., Any], params: list[Any], *arrays: np.ndarray) -> Any:
        key = (name, arrays[0].shape)
        with self.candidate():
            if key not in self._compiled:
                self._compiled[key] = self._compile(fn, params, self.rest, *arrays)
            return jax.tree.map(np.asarray, self._compiled[key](params, self.rest, *arrays))

    def _run_double(self, name: str, fn: Callable[..., Any], params: list[Any], *arrays: np.ndarray) -> Any:
        key = (name, arrays[0].shape, "double")
        with self.candidate():
            if key not in self._compiled:
                program, shape = jax.make_jaxpr(lambda *args: fn(*args), return_shape=True)(params, self.rest, *arrays)
                self._compiled[key] = in_double(program), jax.tree.structure(shape), {}
            wide, tree, cache = self._compiled[key]
            flat = [_double(leaf) for leaf in jax.tree.leaves((params, self.rest, *arrays))]
            with jax.enable_x64(True):
                if "run" not in cache:
                    cache["run"] = self._compile(wide, *flat)
                return jax.tree.map(np.asarray, jax.tree.unflatten(tree, cache["run"](*flat)))

    def forward(self, params: list[Any], x: np.ndarray, double: bool = False) -> np.ndarray:
        """[rows, time, width] -> the same."""
        run = self._run_double if double else self._run
        y: np.ndarray = run("forward", self.apply, params, x)
        return y

    def run_program(self, program: core.ClosedJaxpr, params: list[Any], x: np.ndarray) -> np.ndarray:
        """A traced forward pass, run as it is."""
        with self.candidate():
            flat = [*jax.tree.leaves((params, self.rest)), x]
            return np.asarray(self._compile(core.jaxpr_as_fun(program), *flat)(*flat)[0])

    def gradients(
        self, params: list[Any], x: np.ndarray, cotangent: np.ndarray, double: bool = False
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """(output, gradients of the parameters, gradient of the input)."""
        run = self._run_double if double else self._run
        y, of_params, of_x = run("gradients", self._pull_back, params, x, cotangent)
        return y, of_params, of_x

    def decoded(self, params: list[Any], x: np.ndarray, double: bool = False) -> np.ndarray:
        """`step` over time."""
        run = self._run_double if double else self._run
        y: np.ndarray = run("decode", self.decode, params, x)
        return y

    # Inputs.

    @functools.cached_property
    def base(self) -> np.ndarray:
        """[long, width]: what every test's input is a prefix of."""
        return self.noise((self.long, self.settings.width))

    @functools.cached_property
    def prefix_cotangents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(input, cotangent, cuts): row i has random cotangents on the outputs before cuts[i] and none after."""
        time, rows = self.train, max(4, self.rows[self.train] * 3 // 8)
        others = self.generator.choice(np.arange(2, time - 1), size=rows - 2, replace=False)
        cuts = np.sort(np.array([time - 1, 1, *others]))
        x, cotangent = (self.noise((rows, time, self.settings.width)) for _ in range(2))
        for row, cut in enumerate(cuts):
            cotangent[row, cut:] = 0
        return x, cotangent, cuts

    @functools.cached_property
    def near_gradients(self) -> tuple[list[np.ndarray], np.ndarray]:
        """(gradients of the parameters, gradient of the input) of `prefix_cotangents` at `near`."""
        x, cotangent, _ = self.prefix_cotangents
        return self.gradients(self.near, x, cotangent)[1:]

    @functools.cache  # noqa: B019  (a probe lives as long as its verdict)
    def base_output(self, time: int, double: bool = False) -> np.ndarray:
        """[time, width]: the output for `base` up to `time`, at `near`."""
        x = np.repeat(self.base[None, :time], self.rows[time], axis=0)
        return self.forward(self.near, x, double=double)[0]

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.generator.standard_normal(shape).astype(np.float32)


def _split(module: Any) -> tuple[Any, Any, Any]:
    """(structure, parameters, everything else)."""
    split: Any = nnx.split  # its overloads do not know `...`
    graph, params, rest = split(module, nnx.Param, ...)
    return graph, params, rest


def fan_in_scale(shape: tuple[int, ...]) -> float:
    """1/sqrt(fan in) for a matrix, 0.3 for a vector or a number."""
    return float(np.prod(shape[:-1])) ** -0.5 if len(shape) >= 2 else 0.3


def describe_error(error: BaseException) -> str:
    """`ValueError: first line of the message`."""
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = ["its message cannot be printed"]
    message = lines[0][:200] if lines else ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _is_numeric(leaf: Any) -> bool:
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _double(leaf: Any) -> Any:
    dtype = getattr(leaf, "dtype", None)
    return np.asarray(leaf, np.float64) if dtype is not None and jnp.issubdtype(dtype, jnp.floating) else leaf


def rms(array: np.ndarray) -> float:
    """Root mean square, never 0."""
    return float(np.sqrt(np.mean(np.square(array.astype(np.float64))))) + 1e-30
