"""What candidates are built from: state updates, linear in time, and the small layers around them.

Each state update has three forms: its step, one token; the recurrence that scans the step and defines it; and the
chunk-parallel form, which training uses.
"""

from search_spaces.linear_attention.ops.delta import delta_rule, recurrent_delta_rule, step_delta_rule
from search_spaces.linear_attention.ops.dplr import dplr, recurrent_dplr, step_dplr
from search_spaces.linear_attention.ops.features import dpfp, hedgehog, taylor
from search_spaces.linear_attention.ops.layers import (
    ShortConvolution,
    gated_rms_norm,
    l2_normalize,
    layer_norm,
    rms_norm,
    short_convolution,
)
from search_spaces.linear_attention.ops.linear import (
    linear_attention,
    recurrent_linear_attention,
    step_linear_attention,
)
from search_spaces.linear_attention.ops.mlstm import mlstm, mlstm_state, recurrent_mlstm, step_mlstm
from search_spaces.linear_attention.ops.recurrence import (
    linear_recurrence,
    recurrent_linear_recurrence,
    step_linear_recurrence,
)
from search_spaces.linear_attention.ops.rotary import rotary
from search_spaces.linear_attention.ops.softmax import softmax_attention
from search_spaces.linear_attention.ops.window import (
    sliding_window_attention,
    step_sliding_window_attention,
    window_state,
)

__all__ = [
    "ShortConvolution",
    "delta_rule",
    "dpfp",
    "dplr",
    "gated_rms_norm",
    "hedgehog",
    "l2_normalize",
    "layer_norm",
    "linear_attention",
    "linear_recurrence",
    "mlstm",
    "mlstm_state",
    "recurrent_delta_rule",
    "recurrent_dplr",
    "recurrent_linear_attention",
    "recurrent_linear_recurrence",
    "recurrent_mlstm",
    "rms_norm",
    "rotary",
    "short_convolution",
    "sliding_window_attention",
    "softmax_attention",
    "step_delta_rule",
    "step_dplr",
    "step_linear_attention",
    "step_linear_recurrence",
    "step_mlstm",
    "step_sliding_window_attention",
    "taylor",
    "window_state",
]
