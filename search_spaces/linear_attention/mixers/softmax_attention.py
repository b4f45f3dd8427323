"""Causal softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), with rotary positions (Su et al.
2021, https://arxiv.org/abs/2104.09864).

    y_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(key_dim)) v_s

Quadratic in time and with a state that grows, so that the gate rejects it: trained for comparison alone, outside the
grammar.
"""

from flax import nnx

from search_spaces.linear_attention import ops


class TokenMixer(nnx.Module):
    """Softmax attention: keeps every token, and looks all of them up again at each."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, x):
        projected = self.query(x), self.key(x), self.value(x)
        q, k, v = (z.reshape(*x.shape[:2], self.heads, -1) for z in projected)
        y = ops.softmax_attention(ops.rotary(q, 0), ops.rotary(k, 0), v)
        return self.output(y.reshape(x.shape)).astype(x.dtype)
