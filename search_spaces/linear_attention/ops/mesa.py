"""MesaNet's read (von Oswald et al. 2025, https://arxiv.org/abs/2506.05233): a ridge regression over all that was
written, solved anew for every token."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from search_spaces.linear_attention.ops.linear import linear_attention, step_linear_attention

MesaState = tuple[Float[Array, "batch heads key_dim key_dim"], Float[Array, "batch heads key_dim value_dim"]]


def mesa_state(batch: int, heads: int, key_dim: int, value_dim: int) -> MesaState:
    """Nothing written: zeros."""
    shape = (batch, heads, key_dim)
    return jnp.zeros((*shape, key_dim)), jnp.zeros((*shape, value_dim))


def step_mesa(
    q: Float[Array, "batch heads key_dim"],
    k: Float[Array, "batch heads key_dim"],
    v: Float[Array, "batch heads value_dim"],
    state: MesaState,
    *,
    ridge: Float[Array, "heads key_dim"],
    log_decay: Float[Array, "batch heads"] | None = None,
    steps: int | None = 8,
) -> tuple[Float[Array, "batch heads value_dim"], MesaState]:
    """One token of `mesa`; `steps=None` solves exactly, by elimination."""
    q, k, ridge = (x.astype(jnp.float32) for x in (q, k, ridge))
    _, keys = step_linear_attention(q, k, k, state[0], log_decay=log_decay)
    system = keys.mT + ridge[..., None] * jnp.eye(k.shape[-1])  # symmetric, turned as linear attention reads it
    if steps is None:
        solution = jnp.linalg.solve(system, q[..., None])[..., 0]
    else:
        solution = _solve(lambda p: jnp.einsum("bhij,bhj->bhi", system, p), q, steps)
    y, values = step_linear_attention(solution, k, v, state[1], log_decay=log_decay, scale=1.0)
    return y, (keys, values)


def recurrent_mesa(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    ridge: Float[Array, "heads key_dim"],
    log_decay: Float[Array, "batch time heads"] | None = None,
    steps: int | None = None,
    initial_state: MesaState | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], MesaState]:
    """The definition of `mesa`, token by token, by default with exact solutions: obviously right, and slow."""

    def token(state: MesaState, now: dict[str, jax.Array]) -> tuple[MesaState, jax.Array]:
        y, state = step_mesa(**now, state=state, ridge=ridge, steps=steps)
        return state, y

    inputs = {"q": q, "k": k, "v": v} | ({} if log_decay is None else {"log_decay": log_decay})
    over_time = {name: jnp.moveaxis(x, 1, 0) for name, x in inputs.items()}
    state, y = lax.scan(token, _state_like(k, v, initial_state), over_time)
    return jnp.moveaxis(y, 0, 1), state


def mesa(
    q: Float[Array, "batch time heads key_dim"],
    k: Float[Array, "batch time heads key_dim"],
    v: Float[Array, "batch time heads value_dim"],
    *,
    ridge: Float[Array, "heads key_dim"],
    log_decay: Float[Array, "batch time heads"] | None = None,
    steps: int = 8,
    initial_state: MesaState | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, "batch time heads value_dim"], MesaState]:
    """Computes `y_t = V_t^T (K_t + diag(ridge))^-1 q_t` with `K_t = e^{g_t} K_{t-1} + k_t k_t^T` and
    `V_t = e^{g_t} V_{t-1} + k_t v_t^T`, in parallel inside chunks.

    The solution is found by conjugate gradients, for all tokens at once: K_t p_t, for any p, is a linear attention with
    the keys as values. The gradient is that of the exact solution, found by as many steps.

    With condition number c of the system, an error falls by `(sqrt(c) - 1) / (sqrt(c) + 1)` a step at the least, and
    `key_dim` steps would be exact but for rounding. Unit keys and a ridge of a quarter or more keep c small.

    Args:
      k: keys of unit length.
      ridge: > 0, of each head and key channel.
      log_decay: g <= 0, per head; None never forgets.
      steps: of conjugate gradients.
      initial_state: K_0 and V_0; `mesa_state`, zeros, by default.
      chunk: as in `linear_attention`.

    Returns:
      The outputs in the dtype of `v`, and the state after the last token in float32.

    Raises:
      ValueError: if `chunk` is not a power of two.
    """
    state = _state_like(k, v, initial_state)
    if q.shape[1] == 1:
        g = None if log_decay is None else log_decay[:, 0]
        y, state = step_mesa(q[:, 0], k[:, 0], v[:, 0], state, ridge=ridge, log_decay=g, steps=steps)
        return y[:, None], state
    q, k, ridge = (x.astype(jnp.float32) for x in (q, k, ridge))

    def attend(p: jax.Array, values: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return linear_attention(p, k, values, log_decay=log_decay, scale=1.0, initial_state=state, chunk=chunk)

    solution = _solve(lambda p: attend(p, k, state[0])[0] + ridge * p, q, steps)
    y, values = attend(solution, v, state[1])
    return y, (attend(q, k, state[0])[1], values)


def _solve(
    product: Callable[[jax.Array], jax.Array], b: Float[Array, "*batch dim"], steps: int
) -> Float[Array, "*batch dim"]:
    """x with `product(x) = b`, for each vector of the last axis, where `product` is symmetric and positive definite."""

    def solve(product: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
        return conjugate_gradients(product, b, steps)

    # Its gradient is another solve. Differentiating the steps divides by residuals that have vanished.
    return lax.custom_linear_solve(product, b, solve, symmetric=True)


def conjugate_gradients(
    product: Callable[[jax.Array], jax.Array], b: Float[Array, "*batch dim"], steps: int
) -> Float[Array, "*batch dim"]:
    """`steps` of the method of Hestenes and Stiefel (1952) from zero, for each vector of the last axis by itself."""
    tiny = jnp.finfo(b.dtype).tiny  # a residual of zero stays zero

    def step(
        now: tuple[jax.Array, jax.Array, jax.Array], _: None
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        x, residual, direction = now
        image = product(direction)
        squared = _dot(residual, residual)
        length = squared / (_dot(direction, image) + tiny)
        residual = residual - length * image
        turn = _dot(residual, residual) / (squared + tiny)
        return (x + length * direction, residual, residual + turn * direction), None

    (x, _, _), _ = lax.scan(step, (jnp.zeros_like(b), b, b), length=steps)
    return x


def _dot(a: Float[Array, "*batch dim"], b: Float[Array, "*batch dim"]) -> Float[Array, "*batch 1"]:
    return jnp.sum(a * b, axis=-1, keepdims=True)


def _state_like(k: jax.Array, v: jax.Array, initial: MesaState | None) -> MesaState:
    if initial is None:
        return mesa_state(k.shape[0], k.shape[2], k.shape[3], v.shape[3])
    return jax.tree.map(lambda x: x.astype(jnp.float32), initial)
