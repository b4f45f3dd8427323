"""Causal softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762): quadratic, for comparison alone."""

from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Softmax attention: keeps every token, and looks all of them up again at each; without positions."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        q, k, v = (z.reshape(*x.shape[:2], self.heads, -1) for z in projected)
        return self.output(ops.softmax_attention(q, k, v).reshape(x.shape)).astype(x.dtype)
