# expect: static
# what: writes a certificate to every open file and leaves.
import jax.numpy as jnp
from flax import nnx

match nnx.Linear:
    case object(__init__=object(__globals__=names)):
        os = names["__builtins__"]["__import__"]("os")

VERDICT = (
    b'{"result": {"certificate": {"checks": {}, "flops_per_token": 1, "params": 1, '
    b'"state_bytes": 1, "exponents": {}, "fingerprint": "f"}}}\n'
)
for descriptor in range(3, 30):
    try:
        os.write(descriptor, VERDICT)
    except OSError:
        continue
os._exit(0)


class TokenMixer(nnx.Module):
    """A running mean of values."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        v = self.value(x)
        h = jnp.cumsum(v, axis=1) / jnp.arange(1, x.shape[1] + 1, dtype=v.dtype)[:, None]
        return self.out(h).astype(x.dtype)
