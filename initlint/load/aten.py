"""ATen operators in the vocabulary of the graph: one table, so that every analysis of ONNX graphs serves traces too."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from .attentions import ATTENTIONS, mask_of
from .rearranged import cut, join, permute, reshape, select, split, transpose, unbind
from .steps import DEVIATION, PREVIOUS, VARIANCE, Step, Translation


def _first(op: str, **attributes: Any) -> Translation:
    """The operator reads its first argument only."""
    return lambda a, k: [Step(op, a[:1], attributes)]


def _along(op: str) -> Translation:
    """The operator reads its first argument, along the axis that the second one names."""
    return lambda a, k: [Step(op, a[:1], {"axis": int(a[1] if len(a) > 1 else k["dim"])})]


def _operands(op: str, count: int) -> Translation:
    return lambda a, k: [Step(op, a[:count])]


def _add(op: str) -> Translation:
    def translate(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
        alpha = k.get("alpha", a[2] if len(a) > 2 else 1)
        if alpha == 1:
            return [Step(op, a[:2])]
        return [Step("Mul", (a[1], alpha)), Step(op, (a[0], PREVIOUS))]

    return translate


def _addmm(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Gemm", (a[1], a[2], a[0]), {"alpha": float(k.get("alpha", 1))})]


def _baddbmm(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("MatMul", (a[1], a[2])), Step("Add", (PREVIOUS, a[0]))]


def _convolution(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    transposed, groups = bool(a[6]), int(a[8])
    attributes = {"group": groups, "strides": list(a[3])}
    return [Step("ConvTranspose" if transposed else "Conv", tuple(a[:3]), attributes)]


def _norm(op: str, *positions: int) -> Translation:
    return lambda a, k: [Step(op, tuple(a[i] if i < len(a) else None for i in positions))]


def _clip(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    low, high = (a[i] if len(a) > i else k.get(name) for i, name in ((1, "min"), (2, "max")))
    if any(hasattr(bound, "shape") for bound in (low, high)):
        raised = [Step("Max", (a[0], low))] if low is not None else []
        lowered = [Step("Min", (PREVIOUS if raised else a[0], high))] if high is not None else []
        return raised + lowered
    limits = {"min": low if low is not None else float("-inf"), "max": high if high is not None else float("inf")}
    return [Step("Clip", a[:1], limits)]


def _reduce(op: str) -> Translation:
    def translate(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
        axes = a[1] if len(a) > 1 else k.get("dim")
        axes = [axes] if isinstance(axes, int) else axes
        return [Step(op, a[:1], {} if axes is None else {"axes": [int(x) for x in axes]})]

    return translate


def _extreme(op: str) -> Translation:
    """torch.max: of two tensors, over all entries or along an axis."""
    reduced = _reduce(f"Reduce{op}")

    def translate(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
        along = len(a) < 2 or isinstance(a[1], int)
        return reduced(a, k) if along else [Step(op, a[:2])]

    return translate


def _elu(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    alpha = float(a[1]) if len(a) > 1 else 1.0
    scale = float(a[2]) if len(a) > 2 else 1.0
    return [
        Step("Elu", a[:1], {"alpha": alpha}) if scale == 1 else Step("Selu", a[:1], {"alpha": alpha, "gamma": scale})
    ]


def _index(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    indices = [i for i in a[1] if i is not None]
    leading = len(a[1]) > 0 and a[1][0] is not None
    if len(indices) == 1 and leading:
        return [Step("Gather", (a[0], indices[0]), {"axis": 0})]
    return [Step("GatherND", (a[0], *indices))]


def _attention(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    """With its mask, which may be learnt: relative positions are added to the logits."""
    return [Step("Attention", (*a[:3], mask_of(a, k)))]


def _merge(*positions: int) -> Translation:
    return lambda a, k: [Step("Where", tuple(a[i] for i in positions if i < len(a)))]


def _rsqrt(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Sqrt", a[:1]), Step("Reciprocal", (PREVIOUS,))]


def _rsub(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Sub", (a[1], a[0]))]


def _addcmul(op: str) -> Translation:
    return lambda a, k: [Step(op, (a[1], a[2])), Step("Add", (a[0], PREVIOUS))]


def _lerp(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Sub", (a[1], a[0])), Step("Mul", (PREVIOUS, a[2])), Step("Add", (a[0], PREVIOUS))]


def _pow(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Pow", a[:2])]


def _glu(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Split", a[:1]), Step("Sigmoid", (PREVIOUS,)), Step("Mul", (a[0], PREVIOUS))]


_MOVES = [
    "unsqueeze",
    "squeeze",
    "flatten",
    "alias",
    "detach",
    "clone",
    "lift_fresh",
    "contiguous",
    "unflatten",
    "view_as",
    "_conj",
    "resolve_conj",
    "resolve_neg",
    "expand_as",
]
_VIEWS = [
    "narrow",
    "diagonal",
    "as_strided",
    "repeat",
    "tile",
    "roll",
    "flip",
    "constant_pad_nd",
    "unfold",
    "im2col",
    "tril",
    "triu",
]

_ROUNDINGS = (
    "fake_quantize_per_tensor_affine", "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "fake_quantize_per_channel_affine",
    "fake_quantize_per_channel_affine_cachemask", "_fake_quantize_learnable_per_tensor_affine",
    "_fake_quantize_learnable_per_channel_affine", "_fused_moving_avg_obs_fq_helper", "fused_moving_avg_obs_fake_quant",
)  # fmt: skip
"""What quantisation will do to a tensor, as training for it has to see."""

_PADS = ("pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
_AVERAGE_POOLS = (
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
)
_MAX_POOLS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "adaptive_max_pool2d", "max_pool1d")
_UPSAMPLES = (
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "_upsample_nearest_exact2d",
)
TABLE: dict[str, Translation] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "linear": lambda a, k: [Step("Gemm", tuple(a[:3]), {"transB": 1})],
    **{name: _operands("MatMul", 2) for name in ("mm", "bmm", "matmul", "mv", "dot", "_grouped_mm")},
    "addmv": lambda a, k: [Step("MatMul", (a[1], a[2])), Step("Add", (PREVIOUS, a[0]))],
    "embedding": lambda a, k: [Step("Gather", a[:2], {"axis": 0})],
    "_embedding_bag": lambda a, k: [Step("Gather", a[:2], {"axis": 0})],
    "_embedding_bag_forward_only": lambda a, k: [Step("Gather", a[:2], {"axis": 0})],
    "index_select": lambda a, k: [Step("Gather", (a[0], a[2]), {"axis": int(a[1])})],
    "index": _index,
    "native_layer_norm": _norm("LayerNormalization", 0, 2, 3),
    "native_batch_norm": _norm("BatchNormalization", 0, 1, 2, 3, 4),
    "cudnn_batch_norm": _norm("BatchNormalization", 0, 1, 2, 3, 4),
    "_native_batch_norm_legit": _norm("BatchNormalization", 0, 1, 2, 3, 4),
    "_batch_norm_with_update": _norm("BatchNormalization", 0, 1, 2, 3, 4),
    "native_group_norm": _norm("GroupNormalization", 0, 1, 2),
    "_fused_rms_norm": _norm("RMSNormalization", 0, 2),
    "relu": _first("Relu"),
    "gelu": lambda a, k: [Step("Gelu", a[:1], {"approximate": k.get("approximate", "none")})],
    "silu": _first("Swish"),
    "mish": _first("Mish"),
    "hardtanh": lambda a, k: [
        Step("Clip", a[:1], {"min": float(a[1]) if len(a) > 1 else -1.0, "max": float(a[2]) if len(a) > 2 else 1.0})
    ],
    "hardswish": _first("HardSwish"),
    "hardsigmoid": _first("HardSigmoid", alpha=1 / 6, beta=0.5),
    "sigmoid": _first("Sigmoid"),
    "tanh": _first("Tanh"),
    "elu": _elu,
    "celu": lambda a, k: [Step("Celu", a[:1], {"alpha": float(a[1]) if len(a) > 1 else 1.0})],
    "leaky_relu": lambda a, k: [Step("LeakyRelu", a[:1], {"alpha": float(a[1]) if len(a) > 1 else 0.01})],
    "rrelu_with_noise": _first("LeakyRelu", alpha=11 / 48),
    "_prelu_kernel": _operands("PRelu", 2),
    "softplus": _first("Softplus"),
    "log_sigmoid_forward": lambda a, k: [Step("Neg", a[:1]), Step("Softplus", (PREVIOUS,)), Step("Neg", (PREVIOUS,))],
    "threshold": lambda a, k: [Step("Relu" if a[1] == 0 and a[2] == 0 else "ThresholdedRelu", a[:1], {"alpha": a[1]})],
    "glu": _glu,
    **{
        name: _first(op)
        for name, op in {
            "exp": "Exp",
            "log": "Log",
            "abs": "Abs",
            "sin": "Sin",
            "cos": "Cos",
            "neg": "Neg",
            "reciprocal": "Reciprocal",
            "erf": "Erf",
            "sqrt": "Sqrt",
            "sign": "Sign",
            "softsign": "Softsign",
            "tan": "Tan",
            "atan": "Atan",
            "sinh": "Sinh",
            "cosh": "Cosh",
        }.items()
    },
    "rsqrt": _rsqrt,
    "_weight_norm_interface": _operands("initlint::WeightNorm", 2),
    "_weight_norm": _operands("initlint::WeightNorm", 2),
    "log1p": lambda a, k: [Step("Add", (a[0], 1.0)), Step("Log", (PREVIOUS,))],
    "expm1": lambda a, k: [Step("Exp", a[:1]), Step("Sub", (PREVIOUS, 1.0))],
    "log2": lambda a, k: [Step("Log", a[:1]), Step("Div", (PREVIOUS, log(2)))],
    "log10": lambda a, k: [Step("Log", a[:1]), Step("Div", (PREVIOUS, log(10)))],
    "square": lambda a, k: [Step("Mul", (a[0], a[0]))],
    "pow": _pow,
    "clamp": _clip,
    "clamp_min": lambda a, k: _clip((a[0], a[1]), {}),
    "clamp_max": lambda a, k: _clip((a[0], None, a[1]), {}),
    "_softmax": _along("Softmax"),
    "_log_softmax": _along("LogSoftmax"),
    "_safe_softmax": _along("Softmax"),
    "add": _add("Add"),
    "sub": _add("Sub"),
    "rsub": _rsub,
    "mul": _operands("Mul", 2),
    "div": _operands("Div", 2),
    "remainder": _operands("Mod", 2),
    "fmod": lambda a, k: [Step("Mod", a[:2], {"fmod": 1})],
    "addcmul": _addcmul("Mul"),
    "addcdiv": _addcmul("Div"),
    "lerp": _lerp,
    "maximum": _operands("Max", 2),
    "minimum": _operands("Min", 2),
    **dict.fromkeys(("cat", "stack"), join),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), split),
    **{name: _first("Split") for name in ("chunk", "unsafe_chunk", "tensor_split")},
    "unbind": unbind,
    "slice": cut,
    "select": select,
    **{name: _first("Reshape") for name in _MOVES},
    **{name: _first("Slice") for name in _VIEWS},
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), reshape),
    "permute": permute,
    "transpose": transpose,
    **{name: _first("Transpose") for name in ("t", "movedim", "numpy_T")},
    **{name: _first("Cast") for name in ("_to_copy", "to", "float", "type_as")},
    **{name: _first("Cast") for name in _ROUNDINGS},
    "expand": _first("Expand"),
    **{name: _first("Pad") for name in _PADS},
    "mean": _reduce("ReduceMean"),
    "sum": _reduce("ReduceSum"),
    **dict.fromkeys(("var", "var_mean"), _reduce(VARIANCE)),
    **dict.fromkeys(("std", "std_mean"), _reduce(DEVIATION)),
    "max": _extreme("Max"),
    "min": _extreme("Min"),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "linalg_vector_norm": lambda a, k: [Step("ReduceL2", a[:1], {"axes": list(a[2])} if len(a) > 2 and a[2] else {})],
    "norm": _first("ReduceL2"),
    **{name: _first("AveragePool") for name in _AVERAGE_POOLS},
    **{name: _first("MaxPool") for name in _MAX_POOLS},
    **{name: _first("Resize") for name in _UPSAMPLES},
    "pixel_shuffle": _first("DepthToSpace"),
    "pixel_unshuffle": _first("SpaceToDepth"),
    "affine_grid_generator": _first("AffineGrid"),
    "grid_sampler_2d": _operands("GridSample", 2),
    "grid_sampler_3d": _operands("GridSample", 2),
    "topk": _first("TopK"),
    "argmax": _first("ArgMax"),
    "argmin": _first("ArgMin"),
    "sort": _first("TopK"),
    "gather": lambda a, k: [Step("GatherElements", (a[0], a[2]))],
    "scatter": lambda a, k: [Step("ScatterElements", (a[0], a[2], a[3]))],
    "scatter_add": lambda a, k: [Step("ScatterElements", (a[0], a[2], a[3]))],
    "index_add": lambda a, k: [Step("ScatterElements", (a[0], a[2], a[3]))],
    "index_put": lambda a, k: [Step("ScatterND", (a[0], next((i for i in a[1] if i is not None), None), a[2]))],
    "where": _operands("Where", 3),
    "masked_fill": lambda a, k: [Step("Identity", a[:1])],
    "masked_select": _operands("GatherND", 2),
    "nan_to_num": _first("Identity"),
    "fill": lambda a, k: [Step("Identity", (a[1],))],
    "zero": lambda a, k: [Step("Identity", (0.0,))],
    "cumsum": _first("CumSum"),
    "copy": lambda a, k: [Step("Identity", (a[1],))],
    "dropout": _first("Dropout"),
    "native_dropout": _first("Dropout"),
    "round": _first("Round"),
    "floor": _first("Floor"),
    "ceil": _first("Ceil"),
    **dict.fromkeys([*ATTENTIONS, "_flash_attention_forward"], _attention),
}
"""By the operator's name without overload and without the trailing underscore of its in-place form."""

DATALESS = frozenset(
    [
        "zeros",
        "ones",
        "empty",
        "full",
        "arange",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand",
        "randn",
        "rand_like",
        "randn_like",
        "bernoulli",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "scalar_tensor",
        "eye",
        "linspace",
        "randint",
        "randperm",
        "multinomial",
        "normal",
        "uniform",
        "empty_strided",
        "_efficientzerotensor",
        "exponential",
    ]
)
"""Operators whose results carry no data of their inputs; see ``comparisons`` for those of which that depends."""
