# expect: good
# what: a state space whose matrices are made at import.
"""S5-like MIMO SSM with HiPPO-N diagonalised at module level (eigh of the normal part)."""
import jax
import jax.numpy as jnp
from flax import nnx


def hippo_n(n):
    p = jnp.sqrt(jnp.arange(n) + 0.5)
    s = p[:, None] * p[None, :]
    return jnp.triu(s, 1) - jnp.tril(s, -1)


LAMBDA_IMAG, V = jnp.linalg.eigh(hippo_n(16) * -1j)


class TokenMixer(nnx.Module):
    """S5: one shared complex state of 16 for all channels."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        n = 16
        self.im = nnx.Param(jnp.array(LAMBDA_IMAG))
        self.re = nnx.Param(jnp.full((n,), jnp.log(0.5)))
        self.log_dt = nnx.Param(jnp.linspace(-6.0, -2.0, n))
        b = jax.random.normal(rngs.params(), (n, width)) / width**0.5
        vb = V.conj().T @ b
        self.b = nnx.Param(jnp.stack([vb.real, vb.imag], -1))
        self.c = nnx.Param(jax.random.normal(rngs.params(), (width, n, 2)) / n**0.5)
        self.d = nnx.Param(jnp.ones(width))
        self.gate = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        lam = -jnp.exp(self.re[...]) + 1j * self.im[...]
        a = jnp.exp(lam * jnp.exp(self.log_dt[...]))
        b = jax.lax.complex(self.b[..., 0], self.b[..., 1]) * ((a - 1) / lam)[:, None]
        bu = jnp.einsum("nw,btw->btn", b, x.astype(jnp.complex64))

        @jax.vmap
        def run(bu):
            _, s = jax.lax.associative_scan(lambda i, j: (j[0] * i[0], j[0] * i[1] + j[1]), (jnp.tile(a, (len(bu), 1)), bu))
            return s

        s = run(bu)
        y = 2 * jnp.einsum("wn,btn->btw", self.c[..., 0] + 1j * self.c[..., 1], s).real + self.d[...] * x
        y = jax.nn.gelu(y)
        return (y * jax.nn.sigmoid(self.gate(y))).astype(x.dtype)
