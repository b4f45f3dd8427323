"""What the source alone gives away."""

import pytest

from nas.gate import GateSettings, static
from nas.gate.settings import Fault

ALLOWED = ("jax", "jax.numpy", "jax.nn", "jax.lax", "flax.nnx", "einops", "math", "functools", "typing", "dataclasses")
SETTINGS = GateSettings(16, 2, 64, (*ALLOWED, "search_spaces.linear_attention.ops"))

HEAD = "import jax\nimport jax.numpy as jnp\nfrom flax import nnx\n"

FORBIDDEN = {
    "syntax": "class TokenMixer(:\n    pass",
    "null byte": "x = 1\0",
    "import os": "import os",
    "import numpy": "import numpy as np",
    "from numpy": "from numpy.random import default_rng",
    "star": "from jax.numpy import *",
    "relative": "from . import ops",
    "experimental": "from jax.experimental import io_callback",
    "other space": "from search_spaces.linear_attention import space",
    "callback": HEAD + "def f(x):\n    return jax.pure_callback(abs, x, x)",
    "callback by import": "from jax import pure_callback",
    "callback by alias": HEAD + "call = jax.pure_callback",
    "callback by module alias": HEAD + "j = jax\nj.pure_callback(abs, 1, 2)",
    "callback by tuple": HEAD + "j, k = jax, jnp\nj.pure_callback(abs, 1, 2)",
    "debug": HEAD + "jax.debug.print('x')",
    "config": HEAD + "jax.config.update('jax_enable_x64', True)",
    "private": HEAD + "jax._src.config",
    "other flax": "import flax.nnx\nflax.core.freeze({})",
    "through another module": HEAD + "nnx.nn.linear.jax.debug.print('x')",
    "out through another module": "import functools\nfunctools.reduce\nimport dataclasses\ndataclasses.sys.exit()",
    "load": HEAD + "w = jnp.load('weights.npy')",
    "type hints": "import typing\ntyping.get_type_hints(f)",
    "open": "open('/etc/passwd')",
    "exec": "exec('x = 1')",
    "eval as value": "f = eval",
    "import by hand": "__import__('os')",
    "builtins": "__builtins__['open']",
    "globals": "globals()['x'] = 1",
    "input": "input()",
    "class tree": "().__class__.__base__",
    "frames": "(i for i in ()).gi_frame",
    "getattr computed": "getattr(x, '__cl' + 'ass__')",
    "getattr dunder": "getattr(x, '__class__')",
    "getattr of a module": HEAD + "getattr(jax, 'pure_callback')",
    "setattr": "setattr(x, 'y', 1)",
    "setattr dunder": "def f(self):\n    setattr(self, '__call__', 1)",
    "global": "def f():\n    global N\n    N = 1",
    "nonlocal": "def f():\n    n = 0\n    def g():\n        nonlocal n\n        n = 1",
    "module write": HEAD + "jnp.tanh = jnp.sin",
    "module write in a tuple": HEAD + "x, jnp.tanh = 1, 2",
    "module write in a loop": HEAD + "for jnp.tanh in (1, 2):\n    pass",
    "module write in a comprehension": HEAD + "[0 for jnp.tanh in (1, 2)]",
    "module write by with": HEAD + "with f() as jnp.tanh:\n    pass",
    "module write deep": HEAD + "jax.nn.initializers.zeros = 1",
    "module item": HEAD + "nnx.registry['x'] = 1",
    "module delete": HEAD + "del jnp.tanh",
    "module passed on": HEAD + "m = identity(jnp)\n",
    "class attribute": "TokenMixer.calls = 0",
    "type attribute": "def f(self):\n    type(self).calls = 0",
    "function attribute": "def f():\n    pass\nf.calls = 0",
    "bare except": "try:\n    f()\nexcept:\n    pass",
    "catch all": "try:\n    f()\nexcept BaseException:\n    pass",
    "metaclass": "class A(metaclass=M):\n    pass",
    "dunder method": "class A:\n    def __getattribute__(self, name):\n        return 1",
    "async": "async def f():\n    pass",
    "getattr as a value": "g = getattr",
    "getattr in reduce": "import functools\nfunctools.reduce(getattr, ('a', 'b'), 1)",
    "getattr of pieces": "u = '_'\ngetattr(x, f'_{u}init_{u}')",
    "getattr of pieces of another": "getattr(x, f'g{u}')",
    "setattr no identifier": "class A:\n    def f(self):\n        setattr(self, 'a b', 1)",
    "type of three": "type('X', (), {})",
    "super of another": "super(A, b).f()",
    "match attributes": "match f:\n    case object(__globals__=g):\n        pass",
    "match name": "match f:\n    case _ as open:\n        pass",
    "format": "'{0.__class__}'.format(f)",
    "format of an item": "'{0[a]}'.format(f)",
    "format in format": "'{:{0.a}}'.format(f)",
    "format of a name": "s.format(f)",
    "format as a value": "f = 'a'.format",
    "format map": "'{a}'.format_map({})",
    "cache": "import functools\n@functools.cache\ndef f():\n    return []",
    "lru_cache": "from functools import lru_cache",
    "cached_property": "from functools import cached_property",
    "wraps": "import functools\nfunctools.update_wrapper(f, g, assigned=('a',))",
    "other einops": "import einops\neinops.einops",
    "typing decorator": "import typing\ntyping.final(f)",
    "shadowed built-in": "def f(vars):\n    return vars\nvars(f)",
    "built-in of an inner scope": "def f():\n    def g(dir):\n        return dir\n    return dir(g)",
    "import with two meanings": HEAD + "def f(jnp):\n    return jnp.x",
    "dunder by import": "from math import sin as __call__",
    "dunder argument": "f(__class__=1)",
    "free self": "def patch(self):\n    self.attend = 1",
    "with as self": "with f() as self:\n    pass",
    "loop over self": "def f(x):\n    for self in x:\n        self.a = 1",
    "lambda self": "f = lambda self: self",
    "static self": "class A:\n    @staticmethod\n    def f(self):\n        self.a = 1",
    "second self": "class A:\n    def f(this, self):\n        self.a = 1",
    "slots": "class A:\n    __slots__ = ('a',)",
    "hook of subclasses": "class A:\n    def __init_subclass__(cls):\n        pass",
    "registration": HEAD + "jax.tree_util.register_pytree_node(A, f, g)",
    "registration by method": "f.register(g)",
    "platform": HEAD + "jax.lax.platform_dependent(1, cpu=f, default=g)",
    "registry": HEAD + "f(nnx.variablelib.VariableTypeCache)",
    "registry method": HEAD + "nnx.pytreelib.DATA_REGISTRY.add(float)",
    "wide letters": "\uff4f\uff50\uff45\uff4e('x')",
    "mro": "type(f).mro()",
    "address": "x = id(f)",
    "size": "x = 1\n" * 20_000,
    "nesting": "(" * 5_000 + ")" * 5_000,
}

ALLOWED_SOURCES = {
    "imports": "from jax import lax, vmap\nimport jax.numpy as jnp\nfrom jax import nn as jnn\nimport functools, math\n"
    "from search_spaces.linear_attention import ops\nfrom einops import rearrange\nimport flax.nnx\nflax.nnx.relu",
    "init": "class A(nnx.Module):\n    def __init__(self, width):\n        super().__init__()\n        self.a = width\n"
    "        self.b.kernel[0] = 1\n        self.c: int = 3\n        setattr(self, f'layer{1}', 2)",
    "locals": "def f(input, vars):\n    items = {}\n    items['a'] = input\n    items['a'] += vars\n    return items",
    "alias of a function": HEAD + "silu = jax.nn.silu\ny = silu(1.0)",
    "alias of a module": HEAD + "nn = jax.nn\ny = nn.silu(1.0)",
    "decorators": HEAD + "import functools\n@functools.partial(jax.jit, static_argnums=0)\ndef f(n, x):\n    return x",
    "getattr": "class A:\n    def f(self):\n        return getattr(self, 'bias'), getattr(self, f'layer{1}')",
    "submodules": HEAD + "f = jnp.fft.rfft, jnp.linalg.norm, jax.nn.initializers.zeros, nnx.initializers.ones\n"
    "g = jax.lax.linalg.triangular_solve, jax.scipy.linalg.solve_triangular, jax.tree_util.tree_map, jax.tree.map\n"
    "h = jax.lax.Precision.HIGHEST, jax.ad_checkpoint.checkpoint_name, nnx.nn.linear.Linear, jax.random.normal",
    "format": "x = 'at {} of {:.3f} and {name!r}'.format(1, 2.0, name=3)",
    "own names": "def f(input, vars, id):\n    return [input for dir in vars], id",
    "static method": "class A:\n    @staticmethod\n    def f(x):\n        return type(x), super().f",
    "match": "match x:\n    case [1, *rest]:\n        1\n    case int():\n        2\n    case {'a': y}:\n        3",
    "typing": "from typing import NamedTuple\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    a: int",
    "no pytree": HEAD + "class A(nnx.Module, pytree=False):\n    pass",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_refuses(name):
    with pytest.raises(Fault) as caught:
        static.check(FORBIDDEN[name], SETTINGS)
    assert caught.value.check == "static"
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("name", ALLOWED_SOURCES)
def test_allows(name):
    assert "lines" in static.check(ALLOWED_SOURCES[name], SETTINGS)


def test_names_the_line():
    with pytest.raises(Fault, match="line 3"):
        static.check("x = 1\ny = 2\nimport os\n", SETTINGS)
