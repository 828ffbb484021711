"""Addresses: what a PyTorch user would call a tensor of an ONNX file.

The name of the initializer, where it was kept; else the module that the node came from plus the tensor's role.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..kinds import Role

_GENERATED = re.compile(
    r"""^(?:
        onnx::.*            # older PyTorch exporter: folded or transposed
        |_?val_\d+.*        # newer PyTorch exporter
        |_?v?_?\d+          # plain numbers; onnx's own optimiser
        |%\d+               # values of a recorded run
        |t_\d+|_tensor_constant\d*|_to_copy\w*|transpose\w*_\d+
        |(?:.*/)?[A-Za-z]*Constant(?:OfShape)?(?:_\d+)?(?:_output_\d+)?
        |/.*_output_\d+     # result of a node of the older exporter
        |const(?:ant)?_?\d*|initializer_?\d*
        |(?:mul|div|add|linear|permute|_?weight_norm\w*)(?:_\d+)?   # newer PyTorch exporter: a folded operation
        |(?:\w+_)?const(?:_\w+)?__\d+                               # tf2onnx
        |.*_(?:scale|zero_point)
    )$""",
    re.VERBOSE | re.IGNORECASE,
)

QUANTISED = "_quantized"
"""What onnxruntime's quantiser appends to the names of weights."""

_PARAMETER_NAMES = re.compile(
    r"^(?:weight(?:_v|_g|_orig|_hh_l\d+.*|_ih_l\d+.*)?|bias(?:_.*)?|kernel|gamma|beta|gain|scale|shift|table|"
    r"in_proj_(?:weight|bias)|running_(?:mean|var)|embeddings?|original\d*|[wWbBrR])$"
)

_ROLE_NAMES = {
    Role.WEIGHT: "weight",
    Role.BIAS: "bias",
    Role.TABLE: "weight",
    Role.GAIN: "weight",
    Role.SHIFT: "bias",
    Role.RUNNING_MEAN: "running_mean",
    Role.RUNNING_VARIANCE: "running_var",
    Role.SLOPE: "weight",
    Role.RECURRENT_WEIGHT: "weight_hh",
    Role.RECURRENT_BIAS: "bias_hh",
    Role.OTHER: "value",
}


@lru_cache(maxsize=4096)
def is_generated(name: str) -> bool:
    """Whether an exporter made the name up; subgraph prefixes, and what a quantiser appends, do not count."""
    name = name.removesuffix(QUANTISED)
    return bool(_GENERATED.match(name)) or bool(_GENERATED.match(name.rsplit("/", 1)[-1]))


def is_generated_node(name: str, op: str) -> bool:
    """Whether an exporter, or a recorded run, named it after its operator: "/MatMul_1", "node_linear", "Gemm"."""
    return name.startswith(("/", "node_")) or bool(re.fullmatch(rf"{re.escape(op)}([_#]?\d+)?", name))


def without_call_number(scope: str) -> str:
    """The older exporter numbers the calls of a shared module: "layer.query", "layer.query_1", "layer_1.query_2"."""
    return re.sub(r"_\d+(?=\.|$)", "", scope)


def role_name(role: Role) -> str:
    return _ROLE_NAMES[role]


def is_own_layer(address: str) -> bool:
    """ "mlp.up" beside "mlp.down": a parameter with a name of its own, several to a module, each a layer."""
    return not _PARAMETER_NAMES.match(address.rpartition(".")[2])


def layer_of(address: str) -> str:
    """ "encoder.0.fc1.weight" -> "encoder.0.fc1"; empty where the name does not look like module plus parameter."""
    head, dot, tail = address.rpartition(".")
    if dot and head and (_PARAMETER_NAMES.match(tail) or "." in head):
        return head.removesuffix(".parametrizations.weight")
    return ""


class Addresses:
    """Hands out unique names."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def unique(self, wanted: str) -> str:
        count = self._taken.get(wanted, 0)
        self._taken[wanted] = count + 1
        return wanted if count == 0 else self.unique(f"{wanted}#{count + 1}")
