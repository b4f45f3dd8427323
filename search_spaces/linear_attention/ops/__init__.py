"""What candidates are built from: state updates, linear in time, and the small layers around them.

Each state update exists twice: as the recurrence that defines it, and chunk by chunk for training.
"""

from search_spaces.linear_attention.ops.delta import delta_rule, recurrent_delta_rule
from search_spaces.linear_attention.ops.layers import ShortConvolution, l2_normalize, rms_norm
from search_spaces.linear_attention.ops.linear import linear_attention, recurrent_linear_attention
from search_spaces.linear_attention.ops.softmax import softmax_attention

__all__ = [
    "ShortConvolution",
    "delta_rule",
    "l2_normalize",
    "linear_attention",
    "recurrent_delta_rule",
    "recurrent_linear_attention",
    "rms_norm",
    "softmax_attention",
]
