"""Which rule reads which function of torch, and why others are refused."""

from __future__ import annotations

from iresnet_backends.reading.torch_activations import (
    absolute,
    celu,
    clamp,
    div,
    elu,
    gelu,
    hardtanh,
    leaky_relu,
    mul,
    named,
    neg,
    prelu,
    relu6,
    rrelu,
    sigmoid,
    softplus,
    softshrink,
)
from iresnet_backends.reading.torch_graph import Rule
from iresnet_backends.reading.torch_linear import (
    add,
    addmm,
    affine,
    batch_norm,
    cast,
    cat,
    convolution,
    dropout,
    identity,
    linear,
    matmul,
    pad,
    permute,
    reshape,
    rsub,
    sub,
)
from iresnet_backends.reading.torch_sorting import along, extreme, of_two, sort, stack, topk

REFUSED = {
    "layer_norm": "it divides by the spread of its own input, without a finite Lipschitz constant that is proved here",
    "rms_norm": "it divides by the size of its own input, without a finite Lipschitz constant that is proved here",
    "group_norm": "it divides by the spread of its own input, without a finite Lipschitz constant that is proved here",
    "instance_norm": "it divides by the spread of its own input, without a finite Lipschitz constant that is proved here",
    "var_mean": "it divides by the spread of its own input, without a finite Lipschitz constant that is proved here",
    "var": "its slope is unbounded",
    "std": "it is the spread of its own input, which no layer of the reference computes",
    "normalize": "it divides by the norm of its own input: it has no finite Lipschitz constant",
    "local_response_norm": "it divides by the size of its own input, without a finite Lipschitz constant that is proved here",
    "softmax": "its Jacobian is neither shared nor diagonal: no layer of the reference computes it",
    "log_softmax": "its Jacobian is neither shared nor diagonal: no layer of the reference computes it",
    "max_pool1d": "its windows may overlap, and no layer of the reference computes it",
    "max_pool2d": "its windows may overlap, and no layer of the reference computes it",
    "max_pool3d": "its windows may overlap, and no layer of the reference computes it",
    "adaptive_max_pool2d": "its windows may overlap, and no layer of the reference computes it",
    "boolean_dispatch": "its windows may overlap, and no layer of the reference computes it",
    "glu": "a product of two values that depend on the input has no Lipschitz constant on the whole space",
    "scaled_dot_product_attention": "dot-product attention has no Lipschitz constant on the whole space",
    "multi_head_attention_forward": "dot-product attention has no Lipschitz constant on the whole space",
    "bilinear": "a product of two values that depend on the input has no Lipschitz constant on the whole space",
    "hardshrink": "it jumps: it has no Lipschitz constant",
    "threshold": "it jumps: it has no Lipschitz constant",
    "exp": "its slope is unbounded",
    "pow": "its slope is unbounded",
    "__pow__": "its slope is unbounded",
    "square": "its slope is unbounded",
    "lstm": "its gates multiply values that depend on the input",
    "gru": "its gates multiply values that depend on the input",
    "lstm_cell": "its gates multiply values that depend on the input",
    "gru_cell": "its gates multiply values that depend on the input",
    "__bool__": "its forward decides on numbers of its input: what it does elsewhere is unknown",
    "item": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "tolist": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "numpy": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "__array__": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "__float__": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "__repr__": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "__format__": "its forward reads numbers of its input: what it does elsewhere is unknown",
    "__len__": "it is the number of rows, and for another number the forward may be another map; try x.shape[1:] or -1",
    "numel": "it is the number of rows, and for another number the forward may be another map; try x.shape[1:] or -1",
    "nelement": "it is the number of rows, and for another number the forward may be another map; try x.shape[1:] or -1",
    "is_contiguous": "it tells by whom the forward is run",
    "stride": "it tells by whom the forward is run",
}
"""Why some functions are refused."""

_NAMED = {
    "relu": "relu", "tanh": "tanh", "silu": "silu", "mish": "mish", "selu": "selu", "hardswish": "hardswish",
    "hardsigmoid": "hard sigmoid", "softsign": "softsign", "logsigmoid": "log sigmoid", "log_sigmoid": "log sigmoid",
    "tanhshrink": "tanhshrink", "sin": "sine",
}  # fmt: skip
_AFFINE = (
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "interpolate", "upsample", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "flip", "fliplr", "flipud", "roll", "__getitem__", "narrow", "select",
    "index_select", "chunk", "split", "tensor_split", "unbind", "mean", "sum", "cumsum", "fold", "unfold", "einsum",
    "tensordot", "bmm", "mv", "tril", "triu", "diff", "repeat", "expand",
)  # fmt: skip
_SAME = ["contiguous", "clone", "detach", "requires_grad", "positive", "data"]
_RESHAPES = ["reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"]
_PERMUTES = ["permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT"]
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, identity), **dict.fromkeys(("to", "type", "float", "double", "type_as", "cuda", "cpu"), cast),
    **dict.fromkeys(_RESHAPES, reshape), **dict.fromkeys(_PERMUTES, permute), **dict.fromkeys(_AFFINE, affine),
    **{name: named(layer) for name, layer in _NAMED.items()},
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"), dropout),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__"), add),
    **dict.fromkeys(("sub", "subtract", "__sub__", "__isub__"), sub), **dict.fromkeys(("rsub", "__rsub__"), rsub),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__", "__imul__"), mul),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__", "__div__", "__itruediv__", "__idiv__"), div),
    **dict.fromkeys(("neg", "negative", "__neg__"), neg), **dict.fromkeys(("matmul", "mm", "__matmul__"), matmul),
    **dict.fromkeys(("abs", "absolute", "__abs__"), absolute), **dict.fromkeys(("clamp", "clip"), clamp),
    "linear": linear, "addmm": addmm, "batch_norm": batch_norm, "pad": pad, "sigmoid": sigmoid, "expit": sigmoid, "gelu": gelu, "elu": elu,
    "celu": celu, "leaky_relu": leaky_relu, "prelu": prelu, "rrelu": rrelu, "softplus": softplus, "softshrink": softshrink,
    "hardtanh": hardtanh, "relu6": relu6, "cat": cat, "concat": cat, "concatenate": cat, "stack": stack,
    "sort": sort, "topk": topk, **dict.fromkeys(("max", "min"), extreme), **dict.fromkeys(("amax", "amin"), along),
    **dict.fromkeys(("maximum", "minimum"), of_two),
}  # fmt: skip
"""The rule of each function, by its name in torch."""
