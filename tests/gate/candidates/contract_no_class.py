# expect: contract
import jax.numpy as jnp


def mix(x):
    return jnp.cumsum(x, 1)
