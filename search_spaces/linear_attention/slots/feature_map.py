"""Feature map: what queries and keys go through before they meet (Katharopoulos et al. 2020)."""

# mypy: ignore-errors
import jax
import jax.numpy as jnp
from flax import nnx


class Off:
    """No feature map: queries and keys meet as they are."""


class Silu:
    """SiLU features: nearly nonnegative, and smooth where ReLU dies."""

    def feature_map(self, z):
        return jax.nn.silu(z)


class Relu:
    """ReLU features: nonnegative and sparse, so that unlike keys do not interfere."""

    def feature_map(self, z):
        return jax.nn.relu(z)


class SquaredRelu:
    """Squared ReLU features: sharper than ReLU, so that the best match counts more (Primer)."""

    def feature_map(self, z):
        return jnp.square(jax.nn.relu(z))


class Elu:
    """ELU + 1 features: positive, so that every weight is (linear transformers)."""

    def feature_map(self, z):
        return jax.nn.elu(z) + 1.0


class Softmax:
    """Softmax features: positive, and in competition with each other (Efficient Attention)."""

    def feature_map(self, z):
        return jax.nn.softmax(z, axis=-1)


class Learned:
    """Learned ReLU features: each head learns in which directions keys are alike (T2R)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.feature = nnx.Param(nnx.initializers.orthogonal()(rngs.params(), (self.heads, self.key_dim, self.key_dim)))

    def feature_map(self, z):
        return jax.nn.relu(jnp.einsum("bthd,hde->bthe", z, self.feature[...]))
